"""What the command lines share: how one runs, progress, tables, plot style, quiet set-up. Imports nothing of ours."""
