"""Load as it comes in life: its rate changes, nobody waits for anybody, and it passes or fails."""
