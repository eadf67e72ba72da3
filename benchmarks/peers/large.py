MODEL = "photo"
def repository(): raise NotImplementedError
