"""Offline jobs: a folder, list, tar or bucket of pictures to a file of labels; sharded, resumable, without a server."""
