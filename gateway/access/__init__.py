"""Who may ask: keys, tokens, scopes, quotas."""
