"""What a model is asked to go on from, so that it is calibrated and checked on text of its own.

Four kinds: chat, code, prose, other scripts. The three lists have nothing in common: what a draft
is rounded by, what roundings are chosen by, and what the finished bundle is checked on.
"""

from __future__ import annotations

CALIBRATION = (
    ("chat", "What should I see in Lisbon in three days?"),
    ("prose", "The old lighthouse keeper had not spoken to anyone since the autumn, when"),
    ("code", "def merge_sorted(left, right):\n    "),
    ("other", "Der Zug nach Hamburg hatte wieder Verspätung, und deshalb"),
    ("chat", "Explain how a refrigerator works to a ten-year-old."),
    ("prose", "In the second half of the nineteenth century, the railways changed"),
    ("code", "#include <stdio.h>\n\nint main(int argc, char **argv) {\n"),
    ("other", "El mercado abre a las ocho de la mañana y"),
    ("chat", "Write a short email that asks a colleague for last month's figures."),
    ("prose", "Photosynthesis is the process by which"),
    ("code", "SELECT customers.name, COUNT(*) FROM"),
    ("other", "今天天气很好，我们"),
    ("chat", "Give me five ideas for a birthday party at home."),
    ("prose", "Breaking news: officials said on Tuesday that"),
    ("code", "class Stack:\n    def __init__(self):\n"),
    ("other", "Сегодня утром на площади"),
)
SEARCH = (
    ("chat", "How do I remove a coffee stain from a shirt?"),
    ("prose", "My grandmother used to say that every garden"),
    ("code", "function debounce(callback, delay) {\n"),
    ("other", "Le conseil municipal a décidé hier de"),
    ("chat", "Which is larger, 17 times 6 or 100? Show your steps."),
    ("prose", "The recipe calls for two cups of flour and"),
    ("code", "import numpy as np\n\ndef normalize(matrix):\n"),
    ("other", "昨日の夜、駅の前で"),
)
CHECK = (
    ("chat", "Can you recommend a book about the sea, and say why?"),
    ("prose", "When the rain stopped, the children ran out to"),
    ("code", "public class Account {\n    private double balance;\n"),
    ("other", "La biblioteca della città vecchia"),
    ("chat", "Summarize the plot of Romeo and Juliet in four sentences."),
    ("prose", "A black hole forms when a massive star"),
    ("code", "for i in range(1, 101):\n    if i % 15 == 0:\n"),
    ("other", "في صباح يوم الجمعة"),
)
