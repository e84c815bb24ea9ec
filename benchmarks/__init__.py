"""Speed and memory, each as a figure beside the limit that bounds it, measured in the same run."""
