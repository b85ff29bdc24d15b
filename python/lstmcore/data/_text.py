"""Text as ids: vocabularies of characters or words, and long texts cut into columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks

__all__ = ["Vocabulary", "columns"]


class Vocabulary:
    """Tokens and their ids.

    Special tokens come first, then the others, the most frequent first (and those of the same
    frequency in the order of their code points, so that the ids depend on nothing else).

    Parameters
    ----------
    tokens : iterable of str
        A text: its characters, or for instance ``text.split()`` for words.
    specials : sequence of str, default ("<pad>", "<unk>")
        Tokens with the ids 0, 1, and so on, whether they occur or not.
    padding : str, optional, default "<pad>"
        Which of them is padding: ``vocabulary.padding`` is its id.
    unknown : str, optional, default "<unk>"
        Which of them stands for tokens that are not known; None makes such a token an error.
    min_count : int, default 1
        Rarer tokens are left out.
    max_size : int, optional
        At most so many tokens, special ones included.

    Raises
    ------
    ValueError, TypeError
        If there is no token at all, or an option is out of range.

    Examples
    --------
    >>> import lstmcore as lc
    >>> words = lc.data.Vocabulary("the cat and the hat".split())
    >>> words.tokens
    ['<pad>', '<unk>', 'the', 'and', 'cat', 'hat']
    >>> words.encode(["the", "dog"]), words.decode([2, 4])
    (array([2, 1]), ['the', 'cat'])
    >>> letters = lc.data.Vocabulary("hello", specials=(), padding=None, unknown=None)
    >>> "".join(letters.decode(letters.encode("hole")))
    'hole'
    """

    def __init__(
        self,
        tokens: Iterable[str],
        *,
        specials: Sequence[str] = ("<pad>", "<unk>"),
        padding: str | None = "<pad>",
        unknown: str | None = "<unk>",
        min_count: int = 1,
        max_size: int | None = None,
    ) -> None:
        least = checks.integer(min_count, "min_count", 1)
        several = isinstance(specials, Sequence) and not isinstance(specials, str)
        if not several or not all(isinstance(s, str) for s in specials):
            raise TypeError(f"specials is {checks.describe(specials)}, expected several str")
        if not isinstance(tokens, Iterable):
            raise TypeError(f"tokens is {checks.describe(tokens)}, expected several str")
        for name, token in (("padding", padding), ("unknown", unknown)):
            if token is not None and token not in specials:
                raise ValueError(f"{name} is {token!r}, expected one of specials {specials}")
        counts = Counter(tokens)
        wrong = [token for token in counts if not isinstance(token, str)]
        if wrong:
            raise TypeError(f"tokens has {checks.describe(wrong[0])}, expected str only")
        for token in specials:
            counts.pop(token, None)
        kept = sorted((t for t, n in counts.items() if n >= least), key=lambda t: (-counts[t], t))
        everything = [*specials, *kept]
        if max_size is not None:
            everything = everything[: checks.integer(max_size, "max_size", len(specials) + 1)]
        if not everything:
            raise ValueError("tokens is empty, expected at least one")
        self.tokens = everything
        # Padding and the like may have several letters beside single ones, too.
        self._has_words = 2 * sum(len(token) > 1 for token in everything) > len(everything)
        self._ids = {token: i for i, token in enumerate(everything)}
        if len(self._ids) < len(everything):
            raise ValueError(f"specials has a token twice: {specials}")
        self.padding = None if padding is None else self._ids[padding]
        self.unknown = None if unknown is None else self._ids[unknown]

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __getitem__(self, token: str) -> int:
        """The id of a token.

        Raises
        ------
        KeyError
            If it is not known and no token stands for the unknown ones.
        """
        found = self._ids.get(token, self.unknown)
        if found is None:
            raise KeyError(f"{token!r} is not in the vocabulary, which has no unknown token")
        return found

    def encode(self, tokens: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the ids (N,) of the tokens: of the characters of a str, or of a list's words.

        Raises
        ------
        KeyError
            If one is not known and no token stands for the unknown ones.
        ValueError
            If it is a str, with characters that are not known, while tokens are words.
        """
        if isinstance(tokens, str) and self._has_words and any(t not in self for t in tokens):
            raise ValueError(
                f"tokens is {checks.describe(tokens)}, of which each character would be a token, "
                "but those known are words: expected a list of them, as tokens.split() gives"
            )
        return np.fromiter((self[token] for token in tokens), np.int64)

    def decode(self, ids: npt.ArrayLike) -> list[str]:
        """Return the tokens of ids (N,).

        Raises
        ------
        ValueError, TypeError
            If an id is out of range, or `ids` is not (N,).
        """
        array = checks._asarray(ids, "ids")
        if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
            raise ValueError(f"ids is {checks.describe(ids)}, expected integers (N,)")
        wrong = array[(array < 0) | (array >= len(self))]
        if wrong.size:
            raise ValueError(f"ids has {wrong[0]}, expected 0 to {len(self) - 1}")
        return [self.tokens[int(i)] for i in array]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        mine = (self.tokens, self.padding, self.unknown)
        return mine == (other.tokens, other.padding, other.unknown)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self)} tokens, {self.tokens[:6]}..."


def columns(
    ids: npt.ArrayLike, batch_size: int, *, batch_first: bool = False
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Cut a long text into columns, to be read side by side from top to bottom.

    As one batch for ``fit(..., truncate=k)`` this trains a language model on chunks of k steps,
    with the state carried across all of the text: step t of a column follows its step t - 1.

    Parameters
    ----------
    ids : array (N, ...)
        The text, or a series to be predicted a step ahead.
    batch_size : int
        How many columns; the (N - 1) % batch_size last entries are left out.
    batch_first : bool, default False
        Whether the results are (B, T) rather than (T, B).

    Returns
    -------
    x : ndarray (T, B, ...)
        T = (N - 1) // batch_size.
    target : ndarray (T, B, ...)
        What follows each of x.

    Raises
    ------
    ValueError, TypeError
        If there are not enough for a step in each column, or an argument has a wrong type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> x, target = lc.data.columns([0, 1, 2, 3, 4, 5, 6], 2)
    >>> x.T.tolist(), target.T.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    array = checks._asarray(ids, "ids")
    batch_first = checks.boolean(batch_first, "batch_first")
    batch_size = checks.integer(batch_size, "batch_size", 1)
    if array.ndim == 0 or len(array) <= batch_size:
        raise ValueError(
            f"ids is {checks.describe(ids)}, expected more than {batch_size} entries, "
            "a step for each column and one to predict"
        )
    time = (len(array) - 1) // batch_size
    shape = (batch_size, time, *array.shape[1:])
    pieces = [array[shift : shift + time * batch_size].reshape(shape) for shift in (0, 1)]
    if not batch_first:
        pieces = [piece.swapaxes(0, 1) for piece in pieces]
    x, target = (np.ascontiguousarray(piece) for piece in pieces)
    return x, target
