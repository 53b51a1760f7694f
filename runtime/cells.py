"""What the network says of every cell of a listing: written as the photos are answered, read back to be judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from runtime import declared
from runtime.bundle import Attribute, Category
from runtime.declared import Listed, Listing, Record
from runtime.errors import UserError
from runtime.fleet import Check, Row
from runtime.output import Sheet, Value
from runtime.spreadsheet import bare, plain
from runtime.vocabulary import Aliases, Vocabulary, folded

FIXED = ("image", "line", "category", "category_confidence", "routed_from", "status", "error")
OF_EACH = ("", "_confidence", "_declared_confidence")
"""What there is of an attribute: the label, its probability, and that of the class declared."""


class Cell(NamedTuple):
    """One attribute of one photo, as it is declared and as it is predicted."""

    category: str
    """Which has the attribute; a photo may have some of its router's too."""
    attribute: str
    column: int
    """Of the listing."""
    declared: str
    """As it stands there; empty where nothing does."""
    meant: str
    """The class that is meant by it; empty where it is none."""
    predicted: str
    value: str
    """What would stand there if the prediction is right: the class, or the category that it leads to."""
    confidence: float
    declared_confidence: float
    """The probability of the class that is meant, and of the others; 0 where there is none."""
    also: tuple[str, ...] = ()
    """Other classes that are meant by it: several may lead to one category."""


class Photo(NamedTuple):
    """One row of the listing, answered."""

    image: str
    record: Record
    category: str
    error: str
    """Why there are no cells; empty where there are."""
    cells: Sequence[Cell]


class Question(NamedTuple):
    """What is asked of one photo."""

    category: str
    attribute: Attribute
    column: int
    of_category: bool = False
    """Whether that column holds the photo's category, which the attribute's classes lead to."""


class Questions:
    """What can be asked of the photos of a run, and what people call the answers."""

    def __init__(
        self, listing: Listing, categories: Mapping[str, Category], aliases: Aliases, check: Check | None = None
    ) -> None:
        self.listing = listing
        self._categories = categories
        self._check = check
        self._words = {
            (name, attribute.name): Vocabulary(attribute, aliases)
            for name, category in categories.items()
            for attribute in category.attributes
        }
        names = [name for _, name in self._words]
        self.attributes = list(dict.fromkeys([*names, check.attribute.name] if check else names))

    def nearest(self, cell: Cell) -> list[str]:
        """The classes that look most like what is declared."""
        return self._words[cell.category, cell.attribute].nearest(cell.declared)

    def asked(self, category: str, router: str) -> Iterator[Question]:
        """What is asked of a photo of that category: what the listing has a column for.

        Args:
            router: the category that told the photo's own; its attributes are asked for too.
        """
        seen = set()
        for name in dict.fromkeys([category, router]):
            held = self._categories.get(name)
            for attribute in held.attributes if held else ():
                column = self.listing.columns.of(held, attribute.name)
                if column is not None and attribute.name not in seen:
                    seen.add(attribute.name)
                    yield Question(name, attribute, column)
        column = self.listing.columns.category
        if self._check and column is not None and self._check.classes(category):
            yield Question(self._check.category, self._check.attribute, column, of_category=True)

    def check_any(self) -> None:
        """UserError where nothing is asked of any photo, whatever its category."""
        if any(True for name in self._categories for _ in self.asked(name, name)):
            return
        names = dict.fromkeys(one.name for held in self._categories.values() for one in held.attributes)
        raise UserError(
            f"{self.listing.path} has no column of an attribute of {', '.join(self._categories)}\n"
            f"they have: {', '.join(names)}; name one with: --columns {next(iter(names))}=COLUMN"
        )

    def unasked(self, photo: Photo) -> list[str]:
        """The headers of columns that say something of the photo, and are no attribute of its category."""
        columns, cells = self.listing.columns, photo.record.cells
        asked = {columns.key, columns.category, *(cell.column for cell in photo.cells)}
        told = (place for place, text in enumerate(cells[: len(self.listing.header)]) if not declared.is_empty(text))
        headers = (self.listing.header[place] for place in told if place not in asked)
        return [header for header in headers if folded(header) not in (declared.IMAGE, declared.ID)]

    def sheet(self) -> Sheet:
        """Of the file of answers."""
        return Sheet(
            columns=[*FIXED, *(f"{name}{what}" for name in self.attributes for what in OF_EACH)],
            values=self._values,
            status=lambda texts, row: texts[FIXED.index("status")],
        )

    def _values(self, row: Row) -> list[Value]:
        assert isinstance(row, Listed)
        sure = None if row.category_confidence is None else _digits(row.category_confidence)
        line = str(row.record.line)
        image, category, error = map(plain, (str(row.image), row.category, row.error))
        found: list[Value] = [image, line, category, sure, row.routed_from, row.status, error]
        asked = {question.attribute.name: question for question in self.asked(row.category, row.routed_from)}
        for attribute in self.attributes:
            question = asked.get(attribute)
            answer = row.shows if question and question.of_category else row.answers.get(attribute)
            if question is None or answer is None:
                found += [None] * len(OF_EACH)
                continue
            meant = self._classes(question, row.record)
            shares = [one.confidence for one in (answer, *answer.others) if one.label in meant]
            found += [answer.label, _digits(answer.confidence), _digits(sum(shares))]
        return found

    def photos(self, texts: Iterable[Sequence[str]]) -> Iterator[Photo]:
        """The rows of the listing, in order, each with what the file of answers says of it."""
        starts = {name: len(FIXED) + len(OF_EACH) * place for place, name in enumerate(self.attributes)}
        for record, row in zip(self.listing.records, texts, strict=True):
            image, _, category, _, router, status, error = map(bare, row[: len(FIXED)])
            questions = self.asked(category, router) if status == "ok" else ()
            cells = [self._cell(one, record, row[starts[one.attribute.name] :]) for one in questions]
            yield Photo(image, record, category, error, cells)

    def _cell(self, question: Question, record: Record, texts: Sequence[str]) -> Cell:
        predicted, confidence, declared_confidence = texts[: len(OF_EACH)]
        said, classes = declared.cell(record, question.column), self._classes(question, record)
        # Of several classes that lead to a category the predicted one is meant, where it is among them.
        meant = predicted if predicted in classes else next(iter(classes), "")
        leads = self._check.leads if self._check and question.of_category else {}
        return Cell(
            category=question.category,
            attribute=question.attribute.name,
            column=question.column,
            declared="" if not classes and declared.is_empty(said) else said,
            meant=meant,
            predicted=predicted,
            value=leads.get(predicted, predicted),
            confidence=float(confidence),
            declared_confidence=float(declared_confidence),
            also=tuple(one for one in classes if one != meant),
        )

    def _classes(self, question: Question, record: Record) -> Sequence[str]:
        """What is declared, as classes of the attribute: one, none where it is no class, or all that lead there."""
        said = declared.cell(record, question.column)
        if question.of_category:
            return self._check.classes(self.listing.category(record)) if self._check else ()
        index = self._words[question.category, question.attribute.name].index_of(said)
        return () if index is None else question.attribute.classes[index : index + 1]


def _digits(probability: float) -> str:
    return f"{probability:.6g}"
