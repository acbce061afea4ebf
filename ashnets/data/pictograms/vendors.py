"""The pinned packages of the pictogram corpus: six vendors for training, two held-out vendors, three lists of names."""

from __future__ import annotations

from ashnets.data.pictograms.npm_packages import Package
from ashnets.data.pictograms.sources import Sources, Vendor

# FxEmoji's own spellings, and those whose plain spelling names another concept (its "cat" is a cat's face).
# Judged by looking at each drawing; an empty code means that the drawing fits no concept of that name.
_FXEMOJI = """
blonde=person blond hair;bowing=person bowing;bunny=rabbit face;bunnyside=rabbit;bunny-ears=people with bunny ears
cat=cat face;catside=cat;dog=dog face;dogside=dog;mouse=mouse face;mouseside=mouse;pig=pig face;pigside=pig
tiger=tiger face;tigerside=tiger;construct=construction worker;construction=building construction
constructionsign=construction;crying=crying face;devilhorns=smiling face with horns
dissapointedrelief=sad but relieved face;down=backhand index pointing down;left=backhand index pointing left
right=backhand index pointing right;up=backhand index pointing up;index=index pointing up;frown=person frowning
frownmouth=frowning face with open mouth;smallfrown=frowning face;smallsmile=slightly smiling face
girlgirl=women holding hands;girlguy=woman and man holding hands;couple=;guyguy=men holding hands;gma=old woman
gpa=old man;grin=grinning face;grineyes=beaming face with smiling eyes;grinsquint=grinning squinting face
grinsweat=grinning face with sweat;grintears=face with tears of joy;grinwide=grinning face with big eyes
grinwideeyes=grinning face with smiling eyes;guapimao=person with skullcap;halo=smiling face with halo;hampster=hamster
hands=open hands;handup=person raising hand;hand=raised hand;headmassage=person getting massage;high5=raising hands
kissclosedeyes=kissing face with closed eyes;kisseyes=kissing face with smiling eyes;kiss=kissing face
loudlycrying=loudly crying face;medicalmask=face with medical mask;monkeyhear=hear-no-evil monkey
monkeysee=see-no-evil monkey;monkeyspeak=speak-no-evil monkey;neutral=neutral face;nogesture=person gesturing NO
okgesture=person gesturing OK;aok=OK hand;page=page facing up;pages=page with curl;pout=person pouting
pouting=enraged face;perservere=persevering face;poo=pile of poo;present=wrapped gift
screamfear=face screaming in fear;smileeyes=smiling face with smiling eyes;smiletongue=face savoring food
swimming=person swimming;tired=tired face;tongueout=face with tongue;tongueoutwink=winking face with tongue
tongueoutwink2=squinting face with tongue;turban=person wearing turban;waving=waving hand;wave=water wave
winking=winking face;waitress=person tipping hand;anguish=anguished face;fistedhand=oncoming fist
flexbicep=flexed biceps;sweatsplash=sweat droplets;raisedhandsfingerssplayed=hand with fingers splayed
raisedhandpartfingers=vulcan salute;lips=;mouth=mouth;star=glowing star;whitestar=;whitemediumstar=
sunglasses=smiling face with sunglasses;darksunglasses=sunglasses;tie=necktie;lightningmood=
heartribbon=heart with ribbon;heartarrow=heart with arrow;heartblue=;heartgreen=green heart
heartpurple=purple heart;heartyellow=yellow heart;2hearts=two hearts;americasglobe=globe showing Americas
asiaaustraliaglobe=globe showing Asia-Australia;europeafricaglobe=globe showing Europe-Africa
meridianglobe=globe with meridians;acorn=chestnut;banknotedollar=dollar banknote;banknoteeuro=euro banknote
banknotepound=pound banknote;banknoteyen=yen banknote;beachumbrella=umbrella on ground;bellcancellation=bell with slash
ringingbell=bell;blackpushpin=pushpin;bookmarktab=bookmark tabs;bouquetofflowers=bouquet;bullhorn=loudspeaker
cellphone=mobile phone;chartdownwardstrend=chart decreasing;chartupwardstrend=chart increasing
chartupwardstrendyen=chart increasing with yen;chilipepper=hot pepper;clock12oclock=twelve o’clock
clock1oclock=one o’clock;clock2oclock=two o’clock;clock3oclock=three o’clock;clock4oclock=four o’clock
clock6oclock=six o’clock;clock7oclock=seven o’clock;clock12thirty=twelve-thirty;clock1thirty=one-thirty
clock2thirty=two-thirty;clock3thirty=three-thirty;clock4thirty=four-thirty;clock5thirty=five-thirty
clock6thirty=six-thirty;closedmailboxlowered=closed mailbox with lowered flag
closedmailboxraised=closed mailbox with raised flag;openmailboxlowered=open mailbox with lowered flag
openmailboxraised=open mailbox with raised flag;confetti=confetti ball;dragonhead=dragon face;dragonside=dragon
evergreen=evergreen tree;fallingleaf=fallen leaf;leaffluttering=leaf fluttering in wind;faxicon=fax machine
fishcakeswirl=fish cake with swirl;flyingenvelope=money with wings;folder=file folder;openfolder=open file folder
forkknife=fork and knife;foxcrying=;foxkissing=;frontfacingchick=front-facing baby chick;heels=high-heeled shoe
highspeedtrainbulletnose=bullet train;keyboardandmouse=;lockandkey=locked with key;makeupbag=
handheldvideocamera=video camera;leopardside=leopard;manltepiececlock=mantelpiece clock;mansshirt=t-shirt
mensshoe=man’s shoe;mensrunner=running shoe;womansshirt=woman’s clothes;sandals=woman’s sandal;onebuttonmouse=
leftmagnifyingglass=magnifying glass tilted left;rightmagnifyingglass=magnifying glass tilted right
leftwritinghand=writing hand;nooneunder18symbol=no one under eighteen;pigsnout=pig nose;racecar=racing car
outbox=outbox tray;saggitarius=Sagittarius;silhouetteohjapan=map of Japan;sleuthspy=detective
snowmountains=snow-capped mountain;spurtingwhale=spouting whale;stormcloud=cloud with lightning
studiomic=studio microphone;sunraincloud=sun behind rain cloud;tennisball=tennis;thoughtbaloon=thought balloon
speechbubble=speech balloon;toykotower=Tokyo tower;videocasette=videocassette;waningbibbousmoon=waning gibbous moon
floppydisk2=;printericon=printer;potablewatersystem=potable water;pinkwallet=purse
japaneseangrymask=ogre;framewithx=;uppointingsmallredtrisngle=red triangle pointed up
downpointingsmallredtrisngle=red triangle pointed down;doubleexclaimationmark=double exclamation mark
exclaimationquestionmark=exclamation question mark;wiredkeyboard=keyboard;bride=woman with veil
contact=bust in silhouette;controlknob=control knobs;backwithleftwardsarrow=BACK arrow;endwithleftwardsarrow=END arrow
onarrowleftright=ON! arrow;soonwithrightarrow=SOON arrow;topwithupwardsarrow=TOP arrow
diamondshapewithdotinside=diamond with a dot;eightspokedasterix=eight-spoked asterisk
envelopedownarrowabove=envelope with arrow;notebookdecorativecover=notebook with decorative cover;ten=keycap 10
squaredup=UP! button;sixpointedstarwithdot=dotted six-pointed star;heavylatincross=latin cross
opticaldiscicon=optical disk;negativesquaredlatincaptiala=A button (blood type)
negativesquaredlatincaptialb=B button (blood type);negativesquaredlatincaptialo=O button (blood type)
phonerightarrowleft=mobile phone with arrow;reversehandmiddlefinger=middle finger;speakercancellation=muted speaker
rightspeaker3soundwaves=speaker high volume;whiteexclaimationmark=white exclamation mark
whitesunsmallcloud=sun behind small cloud
"""


def _spellings(table: str) -> tuple[tuple[str, str], ...]:
    pairs = (entry.split("=", 1) for line in table.split("\n") for entry in line.split(";") if entry)
    return tuple((name, target) for name, target in pairs)


_GOOGLE = Package(
    "emoji-datasource-google",
    "16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "Apache-2.0",
    "Noto Emoji, Google LLC; collected by Cal Henderson in emoji-data (MIT).",
)

SOURCES = Sources(
    names=Package(
        "unicode-emoji-json",
        "0.9.0",
        "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401",
        "MIT",
        "Mu-An Chiou; names and groups of the Unicode Consortium.",
    ),
    keywords=Package(
        "emojilib",
        "4.0.3",
        "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
        "MIT",
        "Mu-An Chiou and contributors.",
    ),
    subgroups=_GOOGLE,
    vendors=(
        Vendor("google", _GOOGLE, folder="img/google/64"),
        Vendor(
            "fluent-3d",
            Package(
                "@lobehub/fluent-emoji-3d",
                "1.1.0",
                "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
                "MIT",
                "Fluent Emoji, Microsoft Corporation (MIT); packaged by LobeHub.",
            ),
            folder="assets",
            suffix=".webp",
        ),
        Vendor(
            "fluent-flat",
            Package(
                "@lobehub/fluent-emoji-flat",
                "1.1.0",
                "8f9113c027c7c20eced0070354715a4093a459b8bef6332b91d45f38c9bdb147",
                "MIT",
                "Fluent Emoji, Microsoft Corporation (MIT); packaged by LobeHub.",
            ),
            folder="assets",
            suffix=".svg",
        ),
        Vendor(
            "emojione",
            Package(
                "@iconify-json/emojione",
                "1.2.3",
                "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
                "CC-BY-4.0",
                "Emoji One 2.3, Ranks.com Inc. and EmojiTwo contributors; packaged by Iconify. Rendered from SVG.",
            ),
            spellings=_spellings(
                "blond-haired-person=person blond hair;smiling-cat-face-with-heart-eyes=smiling cat with heart-eyes;"
                "man-with-chinese-cap=person with skullcap;up-text-button=UP! button;"
                "heavy-heart-exclamation=heart exclamation;"
                "exclamation-mark=red exclamation mark;question-mark=red question mark;"
                "a-button=A button (blood type);ab-button=AB button (blood type);b-button=B button (blood type);"
                "o-button=O button (blood type);keycap-asterisk=keycap *;keycap-pound=keycap #"
            ),
        ),
        Vendor(
            "noto-v1",
            Package(
                "@iconify-json/noto-v1",
                "1.2.5",
                "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
                "Apache-2.0",
                "Noto Emoji, first version, Google Inc; packaged by Iconify. Rendered from SVG.",
            ),
            spellings=_spellings(
                "up-exclamation-button=UP! button;exclamation-mark=red exclamation mark;"
                "question-mark=red question mark;keycap-asterisk=keycap *;keycap-pound=keycap #;keycap="
            ),
        ),
        Vendor(
            "fxemoji",
            Package(
                "@iconify-json/fxemoji",
                "1.2.2",
                "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
                "Apache-2.0",
                "Firefox OS Emoji, Mozilla Foundation; packaged by Iconify. Rendered from SVG.",
            ),
            spellings=_spellings(_FXEMOJI),
        ),
        Vendor(
            "twitter",
            Package(
                "emoji-datasource-twitter",
                "16.0.0",
                "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
                "CC-BY-4.0",
                "Twemoji, © Twitter, Inc and other contributors; collected by Cal Henderson in emoji-data (MIT).",
            ),
            test=True,
            folder="img/twitter/64",
        ),
        Vendor(
            "openmoji",
            Package(
                "openmoji",
                "17.0.0",
                "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
                "CC-BY-SA-4.0",
                "OpenMoji, the open-source emoji and icon project, HfG Schwäbisch Gmünd. Rendered from SVG.",
            ),
            test=True,
            folder="color/svg",
            suffix=".svg",
        ),
    ),
)
