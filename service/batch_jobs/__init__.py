"""Offline jobs: a folder, list, tar or bucket of images to a file of labels; sharded, resumable, without a server."""
