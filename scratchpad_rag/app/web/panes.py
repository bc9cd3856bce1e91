"""One reader at one moment: how far it is, what it quotes, what it answers, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from scratchpad_rag.app.web.anchors import quote_id, slug
from scratchpad_rag.app.web.strip import is_live
from scratchpad_rag.app.web.views import Cost, LiveQuote, ReaderView, Stage
from scratchpad_rag.app.web.waiting import sentence

_OVER = (Stage.DONE, Stage.STOPPED, Stage.FAILED)

_PANE = Markup(
    '<section class="sp sp-pane sp-reader-{slug} sp-stage-{stage}" aria-labelledby="{slug}-name">'
    '<header class="sp-pane-head"><h2 id="{slug}-name"><span class="sp-key" aria-hidden="true">'
    "</span>{name}</h2>"
    '<p class="sp-stage" role="status" aria-live="polite" aria-atomic="true">'
    '<span class="sp-unseen">{name}: </span>{words}</p></header>{body}</section>'
)
_QUOTES = Markup('<h3 class="sp-label">Quotes</h3><ol class="sp-quotes">{quotes}</ol>')
_QUOTE = Markup(
    '<li class="sp-quote{classes}" id="in-{id}" data-quote="{id}" tabindex="-1">'
    '<span class="sp-badge" aria-hidden="true">{number}</span>'
    '<p class="sp-source">{source}</p><blockquote class="sp-text"><span class="sp-words">'
    "{text}</span></blockquote></li>"
)
_SOURCE = Markup(
    '<a href="#{id}" class="sp-goto">Document {document}</a> · <b>{title}</b>'
    '<span class="sp-where"><span class="sp-unseen"> · </span>{characters}'
    '<span class="sp-{kind}">{fidelity}</span></span>'
)
_INVENTED = Markup(
    '<b>{title}</b><span class="sp-where"><span class="sp-unseen"> · </span>'
    '<span class="sp-invented">✗ in no passage shown</span></span>'
)
_ANSWER = Markup('<h3 class="sp-label">Answer</h3>{answer}{verdict}{known}')
_SHORT = Markup('<p class="sp-answer">{answer}{citations}</p>')
_LONG = Markup(
    '<div class="sp-answer sp-long" role="region" tabindex="0" aria-label="Answer of {name}">'
    "<p>{answer}{citations}</p></div>"
)
_LONG_CHARACTERS = 160  # an answer from here on runs on: it gets small type and a scroller
_CITATION = Markup(
    '<a class="sp-cite" href="#{target}" aria-label="Quote {number}, shown in its passage">'
    "[{number}]</a>"
)
_VERDICT = Markup(
    '<p class="sp-verdict sp-{kind}"><span aria-hidden="true">{sign}</span> {word}</p>'
)
_KNOWN = Markup('<p class="sp-known">{label}: {answers}</p>')
_COST = Markup(
    '<dl class="sp-cost"><div><dt>passes</dt><dd>{passes:,}</dd></div>'
    "<div><dt>tokens</dt><dd>{tokens:,}</dd></div><div><dt>seconds</dt><dd>{seconds:.1f}</dd></div>"
    "<div><dt>tokens a pass</dt><dd>{rate}</dd></div></dl>{saving}"
)
_SAVING = Markup(
    '<div class="sp-saving"><div class="sp-bar" aria-hidden="true">'
    '<span style="width:{share:.1f}%"></span></div><p>Plain decoding takes {tokens:,} passes for '
    "these {tokens:,} tokens; copied quotes made it {passes:,}.</p></div>"
)


def pane(reader: ReaderView, known_answers: Sequence[str] = ()) -> str:
    """One reader's pane as HTML; `known_answers` are shown beside a finished answer."""
    name = slug(reader.name)
    body = _quotes(reader) + _answer(reader, known_answers) + _cost(reader)
    return str(
        _PANE.format(
            slug=name,
            stage=reader.stage.value,
            name=reader.name,
            words=_words(reader),
            body=body or _promise(reader),
        )
    )


def empty_pane(name: str, *, quoting: bool) -> str:
    """The pane of a reader before the first run."""
    reader = ReaderView(name, Stage.WAITING, quoting)
    body = _promise(reader)
    return str(_PANE.format(slug=slug(name), stage="empty", name=name, words="Ready", body=body))


def _promise(reader: ReaderView) -> Markup:
    if reader.quoting:
        text = "Quotes what supports its answer, word for word, then answers and cites the quotes."
    else:
        text = "The same model, asked plainly: it answers at once and shows no evidence."
    return Markup('<p class="sp-promise">{}</p>').format(text)


def _words(reader: ReaderView) -> str:
    """The stage in words. Numbers that change with every token stay out: they would be read out."""
    match reader.stage:
        case Stage.WAITING:
            return "Waits for its turn"
        case Stage.READING:
            return "Reads the context"
        case Stage.QUOTING if reader.quotes and reader.quotes[-1].passage is not None:
            return f"Quotes document {reader.quotes[-1].passage + 1}"
        case Stage.QUOTING:
            return "Quotes"
        case Stage.ANSWERING:
            return "Answers"
        case Stage.DONE:
            return "Done"
        case Stage.STOPPED:
            return "Stopped midway"
        case Stage.FAILED:
            return "Failed"


def _quotes(reader: ReaderView) -> Markup:
    if reader.quotes:
        items = Markup("").join(_quote(reader, quote) for quote in reader.quotes)
        return _QUOTES.format(quotes=items)
    if reader.quoting and reader.stage is Stage.DONE and not reader.abstained:
        return Markup('<h3 class="sp-label">Quotes</h3><p class="sp-note">It quoted nothing.</p>')
    return Markup("")


def _quote(reader: ReaderView, quote: LiveQuote) -> Markup:
    classes = " sp-growing" * is_live(reader, quote)
    if quote.passage is None:
        classes += " sp-lost"
    elif not quote.verbatim:
        classes += " sp-loose"
    return _QUOTE.format(
        classes=classes,
        id=quote_id(reader.name, quote.number),
        number=quote.number,
        source=_source(reader, quote),
        text=quote.text,
    )


def _source(reader: ReaderView, quote: LiveQuote) -> Markup:
    if quote.passage is None:
        return _INVENTED.format(title=quote.title)
    characters = f"characters {quote.start}–{quote.end} · "
    fidelity = "✓ verbatim" if quote.verbatim else "≈ not verbatim"
    if quote.start == quote.end:
        characters, fidelity = "", "its title so far" if is_live(reader, quote) else "its title"
    return _SOURCE.format(
        id=quote_id(reader.name, quote.number),
        document=quote.passage + 1,
        title=quote.title,
        characters=characters,
        kind="verbatim" if quote.verbatim else "altered",
        fidelity=fidelity,
    )


def _answer(reader: ReaderView, known_answers: Sequence[str]) -> Markup:
    if reader.stage is Stage.FAILED:
        return Markup('<p class="sp-alert" role="alert"><b>It failed.</b> {}</p>').format(
            sentence(reader.error)
        )
    if not (reader.answer or reader.stage is Stage.DONE):
        if reader.stage is Stage.STOPPED:
            return Markup('<p class="sp-note">You stopped it before it had answered.</p>')
        return Markup("")
    over = reader.stage in _OVER
    layout = _SHORT if len(reader.answer) < _LONG_CHARACTERS else _LONG
    answer = layout.format(
        name=reader.name,
        answer=reader.answer or Markup('<span class="sp-nothing">(nothing)</span>'),
        citations=_citations(reader),
    )
    return _ANSWER.format(
        answer=answer,
        verdict=_verdict(reader) if over else "",
        known=_known(reader, known_answers) if over else "",
    )


def _citations(reader: ReaderView) -> Markup:
    by_number = {quote.number: quote for quote in reader.quotes}
    links = []
    for number in reader.cited:
        if number in by_number:
            id_ = quote_id(reader.name, number)
            lost = by_number[number].passage is None  # only its text in the pane can be shown
            links.append(_CITATION.format(target=f"in-{id_}" if lost else id_, number=number))
    return Markup(" ") + Markup("").join(links) if links else Markup("")


def _verdict(reader: ReaderView) -> Markup:
    verdicts = Markup("")
    if reader.stage is Stage.STOPPED:
        return _VERDICT.format(kind="open", sign="■", word="stopped midway: not judged")
    if reader.abstained:
        verdicts += _VERDICT.format(
            kind="open", sign="∅", word="says that nothing shown answers it"
        )
    if not reader.parsed:
        word = "the format was not kept: read as far as it goes"
        verdicts += _VERDICT.format(kind="open", sign="!", word=word)
    if reader.right is not None:
        kind, sign = ("right", "✓") if reader.right else ("wrong", "✗")
        verdicts += _VERDICT.format(kind=kind, sign=sign, word=kind)
    return verdicts


def _known(reader: ReaderView, answers: Sequence[str]) -> Markup:
    if not answers:
        return Markup("")
    label = "Known answer" if len(answers) == 1 else "Known answers"
    return _KNOWN.format(label=label, answers=" or ".join(answers))


def _cost(reader: ReaderView) -> Markup:
    cost = reader.cost
    if cost.forward_passes == 0:
        return Markup("")
    return _COST.format(
        passes=cost.forward_passes,
        tokens=cost.new_tokens,
        seconds=cost.seconds,
        rate=f"{cost.new_tokens / cost.forward_passes:.1f}",
        saving=_saving(cost) if reader.quotes and reader.stage in _OVER else "",
    )


def _saving(cost: Cost) -> Markup:
    if cost.new_tokens <= cost.forward_passes:
        return Markup("")
    share = 100 * cost.forward_passes / cost.new_tokens
    return _SAVING.format(share=share, tokens=cost.new_tokens, passes=cost.forward_passes)
