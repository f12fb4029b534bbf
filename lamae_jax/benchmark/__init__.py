"""How fast every room is on this machine: train step, loader, prepare, features, growth, and the programs made for TPUs.

Nothing else imports it; it imports all of them.
"""
