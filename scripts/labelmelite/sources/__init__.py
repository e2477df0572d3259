"""Where data sets come from: a COCO file, a folder of images, an iteration of the loop."""
