"""An exception, and those behind it."""


def links(error, as_shown=False):
    """An error and all that it was made from, or of that what a traceback shows."""
    found = []
    while error is not None and error not in found:
        found.append(error)
        is_cut = as_shown and error.__suppress_context__
        error = error.__cause__ or (None if is_cut else error.__context__)
    return found
