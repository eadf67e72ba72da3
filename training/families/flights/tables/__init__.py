"""The tables that flights come from: fetched, cleaned, joined; delays computed; or read, as they were joined before."""
