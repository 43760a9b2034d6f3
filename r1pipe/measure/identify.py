"""Which language written in Latin letters a word is in, by what stands around it.

Half the words of any text are from a short list: articles, pronouns, prepositions, the verbs of thinking
aloud. Such a word speaks for its language, and one that several languages share for each of them a little. A
spelling does so too, less loudly. What a word says fades with every word of distance, faster across a comma
and fastest where a sentence ends. Each word is given to the language that is loudest where it stands, so a
noun or a name goes with the words around it.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal, get_args

Latin = Literal["en", "es", "fr", "de", "it", "pt", "nl"]
LATIN_NAMES: Final[tuple[Latin, ...]] = get_args(Latin)
"""English first: it is what a text is in where no word of it says anything."""

_TABLES: Final[dict[Latin, str]] = {
    "en": """
        the and of to in is that it for was on are as with his they be at this have from or had by not but
        what all were we when your can said there each which do how if will up other about out many then
        them these so some her would make like him into has two more see could than first been its who now
        did get may over only me my our you she he an no yes wait let also because therefore thus hence
        since where why again still just very too here both check find need know think should must total
        number answer equal equals sum means gives given one three left right same next last try wrong any
        after before don doesn isn didn won while using most does such between divide multiply add plus
        times way much less every day week year time money people want went take took work well look new old
        good big long little never always own under until few got made use used second part side half twice
        per another something lets okay hmm actually maybe sure fine correct incorrect minus result results
        problem solution equation value case step am car come dad dan die due ed hat hay man non pie sea sin
        son tot van war met men
    """,
    "es": """
        el la los las un una unos unas de del al en que es por con para como más pero sus le lo se su ya me
        mi si sí no ni muy sin sobre este esta esto estos estas ese esa eso entre cuando todo toda todos
        todas también fue había era son ser está están hay tiene tienen puede pueden porque donde dónde qué
        cuál cuánto cuántos desde hasta nos les yo tú él ella ellos nosotros entonces así luego ahora
        primero después antes cada mismo misma otro otra otros dos tres número suma respuesta total vamos
        hacer sea igual tanto menos mayor menor debe debemos tenemos veamos necesito tengo bien quedan cual
        cuyo
    """,
    "fr": """
        le la les un une des du de et est en que qui dans pour pas sur au aux ce cette ces il elle ils elles
        nous vous on je tu me se sa son ses leur leurs mon ma mes notre votre avec ne plus par mais ou où
        donc car si être avoir ont sont était fait faire peut peuvent doit comme tout tous toute toutes très
        bien aussi alors ainsi ensuite puis maintenant encore même entre sans sous chaque autre autres dont
        deux trois nombre somme réponse quand quel quelle quels quelles parce lorsque cela ça ai as avons
        avez voici reste égal égale moins après avant premier puisque soit
    """,
    "de": """
        der die das den dem des ein eine einen einem einer eines und ist in zu von mit auf für nicht sich
        auch es an als er sie wir ich du ihr man aus bei nach wie wenn nur noch so dann aber oder war sind
        wird werden wurde hat haben habe hatte kann können muss müssen soll will mehr über um am im zum zur
        vom bis durch diese dieser dieses dass weil also alle alles hier da doch schon jetzt mal sehr immer
        zwei drei zahl summe antwort gleich damit daher deshalb zuerst danach was wer wo welche unser ihre
        seine mein jede jeder kein keine wieder ob gibt ergibt bleibt ja nein unter vor zwischen
    """,
    "it": """
        il lo la gli le un uno una di del dello della dei degli delle al allo alla ai agli alle da dal dalla
        dai in nel nella nei nelle su sul sulla con per tra fra che chi cui non più ma se come anche sono
        era erano essere ha hanno ho abbiamo si ci mi ti ne questo questa questi queste quello quella quelli
        quando dove perché perciò quindi allora poi così ora adesso ancora già molto ogni tutto tutti tutta
        tutte altro altri due tre numero somma risposta deve può possono dobbiamo prima dopo senza stesso
        stessa fa cosa sia meno oppure ed od uguale loro suo sua nostro vediamo rimane restano
    """,
    "pt": """
        os as um uma uns umas de do da dos das em no na nos nas ao aos pelo pela por para com que se não
        mais mas como também ou são foi era ser está estão tem têm há muito já eu ele ela eles elas nós você
        isso isto este esta esse essa aquele quando onde porque porquê então assim depois antes agora ainda
        cada mesmo mesma outro outra todo toda todos todas dois duas três número soma resposta pode podem
        deve precisa precisamos temos vamos sem sobre entre até só seu sua seus suas meu minha qual quais
        quanto quantos logo portanto pois igual menos fazer ter vezes restam
    """,
    "nl": """
        de het een en van ik je jij hij zij ze we wij jullie is dat die in te op zijn was met voor niet aan
        er om maar ook als dan dit deze bij nog uit naar kan kunnen moet moeten heeft hebben heb had wordt
        worden werd zou zal al door over zo of geen meer wat wie waar hoe veel wel nu toch dus want omdat
        daarom eerst daarna alle alles twee drie getal som antwoord gelijk ons onze hun haar mijn elk elke
        iets hier daar weer tot tussen laten kijken krijgen na blijft blijven gaat gaan eens goed ja nee
        zich
    """,
}
WORDS: Final = {language: frozenset(words.split()) for language, words in _TABLES.items()}
"""Words of each language that come in any text, and a few of thinking aloud about numbers.

A word of English that is spelled like one of another language's stands in both tables.
"""

_SPELLINGS: Final = {
    language: re.compile(spellings.replace(" ", "|"))
    for language, spellings in {
        "en": r"^wh ^th sh$ ght ck$ \wings?$ ould \wness$ \wful$ y$ ed$ ee[dnpt]$ oo[dkl] [ts]ions?$ ments?$",
        "es": r"ñ [csx]ión$ ciones$ idad$ idades$ mos$ ué [aeo]ís iendo$ ías?$ [ao]s?$",
        "fr": r"[êîûœëèùç] eau eux$ oux$ euse$ aient$ tés?$ ées?$ ème$ ième [ts]ions?$ ments?$",
        "de": r"[ßäöü] \w{3}ung(en)?$ keit heit$ \wlich isch schl schw schr cht$ tz$ ^ge\w+t$ iert$ ieren$",
        "it": r"zion[ei]$ gli[aeo]?$ cch [^aeiou]ità$ mente$ aggi ssim ucci iamo$ [ae]ndo$ [ao]$",
        "pt": r"[ãõ] ção ções [ln]h[ao] dade ência ância ç[ao] amos$ [aei]ndo$ [áí]vel$ eir[oa] ê [ao]s?$",
        "nl": r"ij aa[^r] uu[^m] ieuw eeuw heid lijk \w{3}tje schap sche$ ^ge\w+en$",
    }.items()
}
"""Spellings that are common in one of these languages, or in a few, and rare in the others; lower case."""

_SPELLING_WEIGHT: Final = 0.4
Break = Literal["", ",", "."]
"""What stands between two words: nothing, a break within a sentence, the end of one."""
_FADES: Final[dict[Break, float]] = {"": 0.65, ",": 0.3, ".": 0.1}
"""What is left of a word's evidence at the next word, beyond a break."""
_LEAST: Final = 0.02
"""Share of all evidence below which a language is not spoken: names, loans and misspellings say so much."""


def languages_of(words: Sequence[str], breaks: Sequence[Break]) -> list[Latin]:
    """The language of each word; `breaks[i]` is what follows word i.

    >>> languages_of("so the sum is donc la somme est".split(), [""] * 8)
    ['en', 'en', 'en', 'en', 'fr', 'fr', 'fr', 'fr']
    """
    lower = [word.lower() for word in words]
    languages = _spoken([(_evidence(word), count) for word, count in Counter(lower).items()])
    if len(languages) == 1:
        return languages * len(words)
    said = [_among(languages, _evidence(word)) for word in lower]
    loud = [[0.0] * len(languages) for _ in words]
    fades = [_FADES[each] for each in breaks[: len(words) - 1]]
    _carry(loud, said, languages, [1.0, *fades])
    _carry(loud[::-1], said[::-1], languages, [1.0, *reversed(fades)], own=False)
    return [languages[max(range(len(languages)), key=heard.__getitem__)] for heard in loud]


def _spoken(said: Sequence[tuple[Mapping[Latin, float], int]]) -> list[Latin]:
    """The languages a text may be in, by what its words say and how often: the one that most speaks for, then
    the one that most of the rest speaks for, and so on while the rest says enough.

    So a word that two languages share brings no second language into a text of one.
    """
    least = max(1.0, _LEAST * sum(sum(each.values()) * count for each, count in said))
    spoken: list[Latin] = []
    while not spoken or said:
        heard = dict.fromkeys(LATIN_NAMES, 0.0)
        for each, count in said:
            for language, share in each.items():
                heard[language] += share * count
        loudest = max(LATIN_NAMES, key=heard.__getitem__)  # of equals the first
        if spoken and heard[loudest] < least:
            break
        spoken.append(loudest)
        said = [(each, count) for each, count in said if each and loudest not in each]
    return spoken


def _among(languages: Sequence[Latin], says: Mapping[Latin, float]) -> Mapping[Latin, float]:
    """What a word says where only these languages are spoken: others it might be of take nothing from it."""
    known = [language for language in languages if language in says]
    return {language: sum(says.values()) / len(known) for language in known}


def _carry(
    loud: Sequence[list[float]],
    said: Sequence[Mapping[Latin, float]],
    languages: Sequence[Latin],
    fading: Sequence[float],
    *,
    own: bool = True,
) -> None:
    """Add to every word what is heard of the words before it, and with `own` what it says itself."""
    for place, language in enumerate(languages):
        heard = 0.0
        for here, says, fades in zip(loud, said, fading, strict=True):
            heard *= fades
            saying = says.get(language, 0.0)
            here[place] += heard + saying if own else heard
            heard += saying


@lru_cache(maxsize=65536)
def _evidence(word: str) -> Mapping[Latin, float]:
    """How much a word in lower case speaks for each language; for none, where it says nothing."""
    knowing = [language for language in LATIN_NAMES if word in WORDS[language]]
    if knowing:
        return {language: 1 / len(knowing) for language in knowing}
    spelled = [language for language in LATIN_NAMES if _SPELLINGS[language].search(word)]
    return {language: _SPELLING_WEIGHT / len(spelled) for language in spelled}
