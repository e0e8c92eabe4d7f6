"""Small sessions beside that of the updates: what clients count, average and find out together."""
