"""Numbers in sentences."""


def counted(number: int, what: str) -> str:
    """A number of things; the first word takes the plural.

    >>> counted(1, "image"), counted(1200, "page index.html")
    ('1 image', '1,200 pages index.html')
    """
    first, _, rest = what.partition(" ")
    words = f"{first}s {rest}".rstrip() if number != 1 else what
    return f"{number:,} {words}"


def are(number: int) -> str:
    """The verb of so many.

    >>> are(1), are(0)
    ('is', 'are')
    """
    return "is" if number == 1 else "are"
