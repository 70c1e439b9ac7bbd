"""Records the metrics of one pod under load, and simulates how the autoscalers of k8s/ respond to them."""
