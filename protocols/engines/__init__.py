"""Engines that move messages between real machines: the protocol as they would have it. None is imported unasked."""
