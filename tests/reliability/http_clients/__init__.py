"""What real HTTP clients make of Convoy's answers, directly and behind proxies."""
