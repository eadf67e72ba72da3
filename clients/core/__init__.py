"""What a call is and how it goes, free of I/O: the drivers of threads and of asyncio carry out its steps."""
