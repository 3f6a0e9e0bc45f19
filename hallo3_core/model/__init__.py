"""The files of a model: found, loaded, downloaded, converted and checked."""
