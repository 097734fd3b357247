"""Files that start a sweep on a cluster: a Slurm batch script, a KubeRay manifest."""
