// The two tabs of "Your image", by mouse and by arrow keys.

import { byId } from "./dom.js";

export function listenForTabs() {
  for (const [name, other] of [["draw", "files"], ["files", "draw"]]) {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => chooseTab(name));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      chooseTab(other);
      byId(`tab-${other}`).focus();
    });
  }
}

export function chooseTab(chosen) {
  for (const name of ["draw", "files"]) {
    const tab = byId(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === chosen));
    tab.tabIndex = name === chosen ? 0 : -1;
    byId(`panel-${name}`).hidden = name !== chosen;
  }
}
