"""The fit that a trial is: what it and the search tell each other, its process, and what its model costs."""
