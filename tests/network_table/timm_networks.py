"""Writes a timm network with random weights as ONNX. Needs a Python with torch, timm and onnxscript."""

import sys

FAMILIES = [
    *("beit_base_patch16_224", "coatnet_0_rw_224", "convnext_atto", "cspresnet50", "deit_tiny_patch16_224"),
    *("densenet121", "efficientnet_b0", "efficientvit_b0", "ghostnet_100", "hrnet_w18_small", "inception_v3"),
    *("levit_128s", "maxvit_tiny_tf_224", "mixer_s32_224", "mobilenetv3_small_100", "mobilevit_xxs", "regnetx_002"),
    *("resnet18", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"),
]
"""A small or common network of each family, by its name in timm."""


def main(name: str, path: str) -> None:
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    images = torch.rand(2, *timm.data.resolve_model_data_config(model)["input_size"])
    with torch.no_grad():
        spread = float(model(images).std())
        # The last linear layers, of which distilled networks have two, whose outputs are averaged.
        heads = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        classes = model.num_classes
        for head in [head for head in heads if head.out_features == classes]:
            head.weight *= 4.0 / max(spread, 1e-6)
    torch.onnx.export(model, (images,), path, dynamic_shapes=({0: "batch"},), external_data=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
