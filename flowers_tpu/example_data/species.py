"""How the flowers of each of the 104 classes are drawn."""

from typing import Any, NamedTuple


class Species(NamedTuple):
    """How the flowers of a class are drawn."""

    petals: int  # of one ring
    shape: str  # see `drawing._half_width`
    rings: int  # the inner ones smaller and turned by half a petal
    colour: str
    second: str  # the pattern's colour
    pattern: str  # see `drawing._pattern`
    centre: str  # its colour
    centre_percent: int  # its radius, of the bloom's
    arrangement: str  # see `drawing._places`


# petals shape rings | colour, second colour, pattern | centre's colour and size | arrangement
_SPECIES = """
 5 heart   1  pink    yellow  eye    yellow 14  trio     pink primrose
 3 pointed 1  lilac   crimson lip    yellow 12  single   hard-leaved pocket orchid
 5 trumpet 1  violet  white   plain  white  12  spike    canterbury bells
 4 frill   1  magenta white   lip    white  10  cluster  sweet pea
 5 round   1  lilac   purple  veins  green  12  pair     wild geranium
 6 pointed 1  orange  brown   spots  brown  10  single   tiger lily
 5 round   1  white   gold    lip    gold   12  spike    moon orchid
 5 star    1  orange  indigo  lip    indigo 12  single   bird of paradise
 3 round   1  indigo  white   eye    white   8  spike    monkshood
28 needle  2  blue    white   tips   indigo 35  single   globe thistle
 3 frill   1  pink    yellow  lip    yellow 10  spike    snapdragon
34 strap   2  yellow  gold    plain  gold   25  trio     colt's foot
16 pointed 2  salmon  white   tips   white  35  single   king protea
34 needle  1  purple  magenta tips   green  45  single   spear thistle
 3 spoon   2  yellow  brown   eye    yellow 10  single   yellow iris
 8 round   3  yellow  gold    eye    gold   12  single   globe-flower
13 strap   1  magenta purple  plain  orange 40  single   purple coneflower
 6 pointed 1  salmon  brown   spots  yellow 10  cluster  peruvian lily
 5 pointed 1  violet  indigo  veins  white  12  single   balloon flower
 2 trumpet 1  white   green   eye    gold   22  single   giant white arum lily
 6 star    1  red     yellow  eye    yellow 10  single   fire lily
13 frill   2  lilac   violet  eye    white  38  single   pincushion flower
 6 round   1  crimson white   spots  cream  10  pair     fritillary
16 pointed 3  red     crimson plain  red    10  pair     red ginger
 6 round   1  indigo  white   tips   indigo 12  spike    grape hyacinth
 4 frill   1  red     black   eye    black  18  single   corn poppy
28 needle  3  crimson magenta tips   crimson 12 single   prince of wales feathers
 5 trumpet 1  blue    white   eye    white  10  single   stemless gentian
13 pointed 3  green   purple  tips   purple 14  single   artichoke
 5 frill   1  crimson white   eye    white  12  cluster  sweet william
 8 frill   3  pink    crimson tips   pink   10  single   carnation
 5 round   1  magenta white   eye    white  10  cluster  garden phlox
 8 pointed 1  sky     blue    veins  green  24  single   love in the mist
 8 heart   1  pink    magenta eye    yellow 22  single   cosmos
13 star    1  blue    white   veins  indigo 35  trio     alpine sea holly
 5 frill   1  lilac   crimson lip    yellow 12  single   ruby-lipped cattleya
 6 needle  1  pink    magenta veins  pink   12  cluster  cape flower
16 pointed 1  white   green   tips   pink   48  single   great masterwort
 4 pointed 2  pink    green   tips   pink   10  spike    siam tulip
 5 round   1  cream   purple  spots  green  22  single   lenten rose
21 strap   2  red     crimson eye    black  20  single   barberton daisy
 6 pointed 1  yellow  gold    plain  orange 36  single   daffodil
 6 frill   1  salmon  cream   eye    cream  10  spike    sword lily
 6 pointed 2  red     crimson veins  yellow 14  single   poinsettia
 6 frill   2  indigo  violet  tips   white  10  single   bolero deep blue
 4 round   1  orange  brown   eye    brown  12  cluster  wallflower
13 frill   3  orange  gold    tips   brown  10  single   marigold
 5 round   1  yellow  gold    plain  gold   25  pair     buttercup
21 strap   1  white   cream   plain  yellow 30  trio     daisy
34 needle  3  yellow  gold    plain  gold   14  single   common dandelion
 5 trumpet 1  purple  white   veins  white  10  single   petunia
 5 round   1  violet  yellow  lip    black  16  trio     wild pansy
 5 heart   1  yellow  orange  eye    orange 14  cluster  primula
21 pointed 1  yellow  gold    eye    brown  48  single   sunflower
 5 frill   1  lilac   crimson eye    cream  14  single   lilac hibiscus
 8 round   2  red     crimson eye    gold   20  single   bishop of llandaff
 4 spoon   1  white   pink    veins  pink   12  spike    gaura
 5 spoon   1  red     white   eye    white  10  cluster  geranium
13 pointed 3  orange  red     eye    gold   12  single   orange dahlia
13 pointed 3  pink    yellow  eye    yellow 12  single   pink-yellow dahlia
 3 frill   1  yellow  crimson lip    crimson 10 spike    cautleya spicata
 6 round   1  pink    white   eye    yellow 26  single   japanese anemone
13 strap   1  gold    orange  eye    black  34  single   black-eyed susan
 5 trumpet 1  white   yellow  eye    gold   12  pair     silverbush
 4 round   1  orange  gold    eye    gold   10  single   californian poppy
13 spoon   1  white   violet  eye    indigo 24  single   osteospermum
 3 pointed 2  violet  white   veins  orange 18  pair     spring crocus
 3 frill   2  indigo  yellow  eye    yellow 10  single   iris
 8 round   1  violet  white   eye    black  22  single   windflower
 6 frill   1  white   cream   plain  gold   36  single   tree poppy
13 pointed 1  orange  black   eye    gold   22  single   gazania
 5 frill   1  magenta crimson spots  crimson 10 cluster  azalea
 8 pointed 3  white   pink    tips   gold   20  single   water lily
 5 round   3  red     crimson eye    crimson 10 single   rose
 5 trumpet 1  white   green   veins  green  10  single   thorn apple
 5 trumpet 1  sky     white   eye    yellow 10  trio     morning glory
10 strap   1  white   purple  eye    green  22  single   passion flower
 8 round   2  pink    white   eye    gold   28  single   lotus
 6 strap   1  white   purple  spots  purple 12  pair     toad lily
 1 heart   1  red     crimson veins  yellow 16  pair     anthurium
 5 spoon   1  white   yellow  eye    gold   10  trio     frangipani
 6 pointed 1  purple  lilac   veins  cream  22  single   clematis
 5 frill   1  red     crimson eye    yellow 14  pair     hibiscus
 5 star    2  violet  white   tips   yellow 14  single   columbine
 5 pointed 1  magenta white   eye    yellow 12  trio     desert-rose
 5 heart   1  purple  crimson veins  cream  12  single   tree mallow
 6 spoon   2  white   pink    eye    pink   14  single   magnolia
 5 strap   1  magenta crimson eye    crimson 14 pair     cyclamen
 4 round   1  white   green   eye    yellow 20  cluster  watercress
 4 strap   1  red     yellow  tips   yellow 10  spike    canna lily
 6 pointed 1  red     white   veins  white  10  pair     hippeastrum
21 needle  1  red     crimson tips   brown  25  trio     bee balm
10 star    2  magenta violet  tips   violet 12  single   pink quill
 5 trumpet 1  pink    crimson spots  white  12  spike    foxglove
 3 round   1  magenta crimson veins  white  16  cluster  bougainvillea
 6 round   3  pink    magenta eye    gold   10  single   camellia
 5 heart   1  lilac   purple  eye    white  12  trio     mallow
 5 trumpet 1  violet  purple  veins  purple 12  pair     mexican petunia
10 star    3  red     green   tips   yellow 12  single   bromelia
13 heart   1  red     yellow  tips   brown  36  single   blanket flower
 5 trumpet 1  orange  yellow  eye    yellow 12  cluster  trumpet creeper
 6 strap   1  orange  crimson spots  crimson 10 pair     blackberry lily
 3 round   2  red     yellow  eye    black  14  single   common tulip
 5 heart   1  pink    magenta tips   yellow 26  single   wild rose
"""


def _parse_species(line: str) -> tuple[str, Species]:
    words: list[Any] = line.split(maxsplit=9)
    for number in (0, 2, 7):
        words[number] = int(words[number])
    *looks, name = words
    return name, Species(*looks)


SPECIES: dict[str, Species] = dict(map(_parse_species, _SPECIES.strip().splitlines()))
