"""The files of a model: find, load, download, convert and check them."""
