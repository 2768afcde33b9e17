def cases(seed):
    yield from ()


def run(case): ...
