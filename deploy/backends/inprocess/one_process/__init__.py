"""An ensemble in one process: what its steps are, how they are run over a batch, and how a failure is told."""
