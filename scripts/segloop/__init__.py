"""segloop: collect a very large instance-segmentation data set for little human time."""

__version__ = "0.1.0"
