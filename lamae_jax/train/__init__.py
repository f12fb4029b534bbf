"""Pretraining: state born sharded, one jitted step, exact resume. The step number is the whole resume state."""
