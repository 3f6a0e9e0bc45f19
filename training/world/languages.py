# ruff: noqa: RUF001
"""Words of several languages, and syllables to make up more words.

A checksum of its letters decides to which split a word belongs. So sentences of two splits never
share a word.
"""

from dataclasses import dataclass
from typing import Literal
from zlib import crc32

import numpy as np

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHARES = (70, 85, 100)
"""Where the splits end, in per cent of the words."""


def split_of(word: str) -> Split:
    place = crc32(word.lower().encode()) % 100
    return next(split for split, end in zip(SPLITS, SHARES, strict=True) if place < end)


@dataclass(frozen=True)
class Language:
    """A language: its voice in espeak, real words, and the parts of made-up syllables."""

    voice: str
    words: tuple[str, ...]
    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    codas: tuple[str, ...]

    def made_up(self, generator: np.random.Generator) -> str:
        """A word of one to four syllables that sounds like the language."""
        parts = []
        for _ in range(generator.choice((1, 2, 3, 4), p=(0.2, 0.45, 0.25, 0.1))):
            parts += [generator.choice(self.onsets), generator.choice(self.vowels)]
            if self.codas and generator.random() < 0.4:
                parts.append(generator.choice(self.codas))
        return "".join(parts)

    def word(self, split: Split, generator: np.random.Generator) -> str:
        """A word of the split: a real one, a made-up one or a number."""
        while True:
            kind = generator.random()
            if kind < 0.5:
                word = str(generator.choice(self.words))
            elif kind < 0.9:
                word = self.made_up(generator)
            else:
                word = str(int(10 ** generator.uniform(0, 4)))
            if split_of(word) == split:
                return word

    def sentence(self, split: Split, generator: np.random.Generator) -> str:
        """Two to seven words of the split, with commas and a full stop."""
        words = [self.word(split, generator) for _ in range(generator.integers(2, 8))]
        commas = generator.random(len(words) - 1) < 0.12
        body = "".join(f"{w}{',' * int(c)} " for w, c in zip(words, [*commas, False], strict=True))
        return body.strip() + str(generator.choice((".", ".", "?", "!")))


def _language(voice: str, words: str, onsets: str, vowels: str, codas: str) -> Language:
    return Language(voice, *(tuple(text.split()) for text in (words, onsets, vowels, codas)))


LANGUAGES = (
    _language(
        "en",
        "people maybe open window paper mother problem beautiful remember summer number family "
        "apple above before moment company happy important simple music very father over warm "
        "weather water river small house always morning evening bread table yellow purple book "
        "the and with from about would could should because never movie village example "
        "umbrella butterfly pepper mama papa bubble wave five above home room time map lamp",
        "b bl br d f fl g gr h j k l m n p pl pr r s sh sm st t th tr v w",
        "a e i o u ai ee oo ou ea",
        "b d f g k l m n nd p r s st t th v",
    ),
    _language(
        "en-us",
        "coffee hurry sofa baby elevator picture favorite pumpkin apartment sidewalk mammal "
        "winter problem better simple supper family mapping available move below famous humble "
        "promise empty member market amber bamboo popcorn tomorrow hammer ripple option woman "
        "we are you they have been some many how why where blue above away people marble",
        "b br ch d f fr g h j k m n p pr r s sh sp t th v w y",
        "a e i o u ay ee ow oo er",
        "b ck d f l m mp n ng p r s t v z",
    ),
    _language(
        "de",
        "Abend Blume Mutter kommen Apfel Problem immer wunderbar Familie Leben oben Baum Wasser "
        "Morgen Sommer über Fenster schön warm Vater Bruder Schwester Brot trinken gemeinsam "
        "das und mit von wir aber haben Zimmer sprechen Papier Pumpe Lampe Bild Himmel Hoffnung "
        "Freude vielleicht Musik müde böse Vogel Buch lieber bunt Mitte Ampel Film Wort",
        "b bl br d f fl g h k kl l m n p pf r s sch st t w z",
        "a e i o u ä ö ü au ei eu ie",
        "b ch d f g l m mp n ng p r s st t",
    ),
    _language(
        "fr",
        "bonjour maman papa famille beau rouge pomme livre matin soleil musique jamais toujours "
        "beaucoup problème simple homme femme fenêtre parler petit nouveau vous nous avec pour "
        "amour ombre bleu feuille mouton vent pluie rivière soupe table après avant bateau "
        "voiture chambre mémoire impossible vivre humeur poème bambou fumée plume",
        "b bl br ch d f fr g j l m n p pl pr r s t tr v",
        "a e é è i o u ou oi au an on in eu",
        "bre l me ne pe que re se te ve",
    ),
    _language(
        "es",
        "amigo mamá papá bueno palabra problema siempre hombre mujer abuela ventana libro agua "
        "mañana verano pueblo familia hablar beber tiempo poema lámpara bomba campo nombre "
        "nuevo mejor feliz música camino blanco verde arriba abajo tambor mapa pluma humo "
        "con para pero como hasta entre plaza primavera invierno sombra lobo",
        "b bl br c d f g h j l ll m n p pl pr r s t tr v",
        "a e i o u ia ie ue",
        "l m n r s",
    ),
    _language(
        "it",
        "buongiorno mamma babbo famiglia bello amico problema sempre uomo donna libro acqua "
        "finestra parola mattina sole tempo musica bambino ombra pioppo campo nuovo vivere "
        "primavera inverno piove zampa lampada pomeriggio popolo fiume piuma mobile subito "
        "con per come molto poco dopo prima vino pane tavolo abbastanza nebbia",
        "b c ch d f fr g gi l m n p pr r s sc t tr v z",
        "a e i o u ia io uo",
        "l m mp n r s tt",
    ),
    _language(
        "pt-br",
        "bom mamãe papai família bonito amigo problema sempre homem mulher livro água janela "
        "palavra manhã verão tempo música menino sombra campo novo viver primavera inverno "
        "chuva lâmpada povo rio pluma móvel também com para como muito pouco depois pão mesa "
        "bombom nuvem barco floresta pimenta abóbora",
        "b br c ch d f g j l lh m n p pr r s t v",
        "a e i o u ã ão ei ou",
        "l m n r s",
    ),
    _language(
        "nl",
        "morgen moeder vader bloem mooi boom water zomer avond familie probleem raam boek brood "
        "muziek leven vogel warm wind lopen spreken altijd nooit samen kamer lamp pop huis "
        "met van voor maar ook hebben hemel appel tafel buiten vriend beweging herfst",
        "b bl br d f g h k kl l m n p r s sch st t v w z",
        "a e i o u aa ee oo oe ui ij",
        "f g k l m mp n p r s t",
    ),
    _language(
        "pl",
        "dzień dobry mama tata dom woda okno książka problem zawsze nigdy rodzina jabłko ptak "
        "muzyka słońce zima lato chleb piękny nowy mowa powoli bębenek mapa pompa zupa babcia "
        "jest oraz albo przed bardzo miasto rzeka wiosna pamięć obok film",
        "b br c cz d dz f g h j k l ł m n p pr r s sz t w z",
        "a e i o u y ą ę ó",
        "k l m n p r s sz t w",
    ),
    _language(
        "tr",
        "anne baba merhaba güzel kitap su pencere sabah akşam müzik yaz kış ekmek büyük küçük "
        "problem aile hava yeni bulut kuş yaprak umut mavi pembe bambaşka ampul kapı masa "
        "için ama çok sonra önce birlikte köprü orman deniz",
        "b c ç d f g h k l m n p r s ş t v y z",
        "a e ı i o ö u ü",
        "k l m n p r s t ş z",
    ),
    _language(
        "sv",
        "morgon mamma pappa blomma vacker vatten sommar fönster bok bröd musik familj problem "
        "alltid aldrig liv fågel varm vind tala rum lampa hus och med från men också himmel "
        "äpple bord ute vän höst båt mjölk ben imorgon",
        "b bl br d f g h j k l m n p r s sk st t tr v",
        "a e i o u y å ä ö",
        "d g l m n ng p r s t",
    ),
    _language(
        "ru",
        "мама папа дом вода окно книга проблема всегда никогда семья яблоко птица музыка солнце "
        "зима лето хлеб красивый новый пора бабушка лампа вместе потом очень можно время "
        "голубь мир любовь память пламя обои",
        "б бр в г д ж з к л м н п пр р с ст т ф х ч ш",
        "а е и о у ы э ю я",
        "в к л м н п р с т",
    ),
    _language(
        "fi",
        "äiti isä talo vesi ikkuna kirja aina perhe omena lintu musiikki aurinko talvi kesä "
        "leipä kaunis uusi puhua mummo lamppu hyvä huomenta ja mutta myös yhdessä pöytä ulkona "
        "ystävä syksy vene maito poppeli pumppu meri puu",
        "h j k l m n p r s t v",
        "a e i o u y ä ö aa ii uu ai ou ie",
        "k l n p r s t",
    ),
    _language(
        "sw",
        "mama baba nyumba maji dirisha kitabu daima familia ndege muziki jua mvua mkate nzuri "
        "mpya kusema taa habari na lakini pia pamoja meza nje rafiki maziwa bahari pumba "
        "bamba mtu wimbo ubao kuimba mboga mbuzi pembe upepo",
        "b ch d f g h j k l m mb mw n nd ng p s sh t v w y z",
        "a e i o u",
        "",
    ),
    _language(
        "id",
        "ibu bapak rumah air jendela buku selalu keluarga apel burung musik matahari hujan roti "
        "indah baru bicara lampu pagi dan tetapi juga bersama meja luar teman susu laut pompa "
        "bambu hampir embun mimpi pohon bunga malam mulut impian pabrik",
        "b c d f g h j k l m n ny p r s t w y",
        "a e i o u ai au",
        "h k l m n ng p r s t",
    ),
)
