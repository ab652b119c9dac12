"""What the voices say: words to train on, and sentences that are only ever used to judge."""

from __future__ import annotations

from pathlib import Path

WORDS = tuple((Path(__file__).parent / "words.txt").read_text().split())
"""Common English words of all sounds."""

TRAINING_SENTENCES = {
    "de": (
        "Guten Morgen, wie geht es Ihnen heute?",
        "Das Wetter ist schön und die Sonne scheint über dem See.",
        "Meine Mutter kauft frische Brötchen beim Bäcker um die Ecke.",
        "Wir wollen am Wochenende mit dem Zug in die Berge fahren.",
        "Bitte sprechen Sie etwas langsamer, ich verstehe nicht viel.",
        "Fünf kleine Frösche hüpfen fröhlich durch den grünen Park.",
        "Der Bäcker bringt uns morgens warmes Brot und süßen Kuchen.",
    ),
    "fr": (
        "Bonjour, comment allez-vous par ce beau matin?",
        "Je voudrais une baguette, du beurre et un peu de fromage.",
        "Le petit chat dort sur le lit pendant que la pluie tombe.",
        "Nous partons en vacances au bord de la mer la semaine prochaine.",
        "Ma voisine chante toujours une chanson douce avant de partir.",
        "Pouvez-vous me dire où se trouve la gare, s'il vous plaît?",
    ),
    "es": (
        "Buenos días, me llamo Pablo y vivo cerca de la playa.",
        "La paloma blanca vuela sobre el mar azul todas las tardes.",
        "Mañana vamos a comprar fruta y verdura en el mercado.",
        "Muchas gracias por su ayuda, hasta la próxima semana.",
        "El perro de mi abuela come pan y bebe mucha agua fresca.",
    ),
    "it": (
        "Buongiorno, come stai in questa bella giornata?",
        "La mamma prepara una buona pizza con il pomodoro fresco.",
        "Il mare è molto bello e tranquillo questa mattina.",
        "Andiamo a ballare con gli amici dopo la cena di domenica.",
        "Un piccolo uccello vola sopra il ponte e beve nel fiume.",
    ),
}
"""By the language's name at espeak-ng."""

HELD_OUT_ENGLISH = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "Hello, my name is Poppy, and I am very happy to meet you.",
    "Would you show me how this remarkable puppet works?",
)
"""Ten Harvard sentences (IEEE, 1969) and two of our own."""

HELD_OUT = {
    "pl": (
        "Dzień dobry, mam na imię Ewa i mieszkam w Warszawie.",
        "Mój brat kupił wczoraj nowy rower i jeździ nim po parku.",
        "Proszę powoli mówić, bo nie wszystko rozumiem.",
    ),
    "nl": (
        "Goedemorgen, mijn naam is Willem en ik woon in Utrecht.",
        "Mijn broer koopt elke vrijdag verse vis op de markt.",
        "Wij fietsen morgen samen door het bos naar het meer.",
    ),
    "pt": (
        "Bom dia, o meu nome é Paulo e moro perto do rio.",
        "A minha mãe prepara um bolo muito bom para a família.",
        "Amanhã vamos passear pela praia com os nossos amigos.",
    ),
    "sv": (
        "God morgon, jag heter Britta och bor vid havet.",
        "Min bror köper bröd och smör i butiken på torget.",
        "På sommaren badar vi ofta i den blåa sjön.",
    ),
}
"""Languages that are never trained on, by their names at espeak-ng."""
