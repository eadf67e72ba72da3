"""Results as people read them: a page with pictures, and two results compared."""
