#!/usr/bin/env python3
"""Makes the data set that comes with Windrow: children's stories and instructions about them.

    python3 tests/reference/make_stories.py presets/data

writes presets/data/stories.txt (documents between lines that hold only <|endoftext|>) and
presets/data/instruct.jsonl (one object a line: instruction, input, output). Python 3, standard
library only; fixed seeds and its own random numbers, so every run on every machine gives the same
bytes. All words are this file's own.

The grammar is kept so small that a model of one or two million parameters learns it within minutes
on a processor: about 500 different words, short sentences, thirteen plots. What makes a story a
story holds throughout: one child with a name and one animal, who keep their pronouns, so that
little must be remembered to go on rightly; the thing that was lost is the thing that is found, and
who is asked for help is the one who helps and is thanked.
"""
import json
import os
import re
import sys

STORY_COUNT = 3300
STORY_SEED = 20240611
INSTRUCT_COUNT = 2800
INSTRUCT_SEED = 77


class Random:
    """A 64-bit linear congruential generator; its upper bits are used. The same everywhere."""

    def __init__(self, seed):
        self.state = (seed * 2862933555777941757 + 3037000493) % 2 ** 64
        for _ in range(8):
            self.below(2)

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2 ** 64
        return (self.state >> 33) % n

    def pick(self, items):
        return items[self.below(len(items))]

    def some(self, items, count):
        pool, out = list(items), []
        for _ in range(count):
            out.append(pool.pop(self.below(len(pool))))
        return out

    def chance(self, percent):
        return self.below(100) < percent


BOYS = ["Tom", "Ben", "Sam", "Max", "Leo", "Jack", "Hugo", "Paul"]
GIRLS = ["Anna", "Mia", "Lucy", "Rose", "Emma", "Nora", "Zoe", "Kate"]
HE_ANIMALS = ["bear", "fox", "dog", "frog", "hedgehog", "pig", "turtle"]
SHE_ANIMALS = ["rabbit", "mouse", "duck", "cat", "goat", "squirrel", "bird"]
ANIMALS = HE_ANIMALS + SHE_ANIMALS
BIG_ANIMALS = ["bear", "dog", "pig", "goat"]
TRAITS = ["little", "young", "happy", "brave", "kind", "shy", "clever", "funny", "quiet"]
COLORS = ["red", "blue", "green", "yellow", "white", "purple", "orange", "pink"]
LOOKS = ["big", "small", "shiny", "old", "new", "soft", "pretty"]
OBJECTS = ["ball", "kite", "hat", "book", "boat", "drum", "bell", "key", "ring", "shell", "doll",
           "scarf", "cup", "coin", "flag", "button", "feather", "box", "lamp", "basket", "flute",
           "stone"]
FRUITS = ["apple", "pear", "plum", "nut"]
FOODS = FRUITS + ["cake", "carrot", "cookie", "bun", "sandwich", "pie"]
FRAGILE = ["boat", "drum", "bell", "doll", "cup", "lamp", "flute", "box", "shell", "kite"]
GIFTS = [thing for thing in OBJECTS if thing not in ("box", "stone")]
ACTIVITIES = ["sing", "run", "dance", "jump", "read books", "climb trees", "look at the clouds",
              "play in the sun", "tell stories", "pick flowers", "count the stars", "paint"]
# (place, with preposition, where one looks there)
PLACES = [
    ("park", "in the park", ["under the bench", "behind the big tree", "in the tall grass",
                             "near the gate", "next to the pond"]),
    ("garden", "in the garden", ["under the apple tree", "behind the fence", "next to the roses",
                                 "in the tall grass", "near the well"]),
    ("forest", "in the forest", ["under the leaves", "behind a rock", "in a hollow tree",
                                 "next to the path", "in the bushes"]),
    ("beach", "at the beach", ["behind the sand castle", "under a rock", "next to the boat",
                               "near the water", "in a small cave"]),
    ("farm", "on the farm", ["under the hay", "behind the barn", "next to the cow", "near the gate",
                             "in the mud"]),
    ("house", "in the house", ["under the bed", "behind the door", "in the big box",
                               "under the table", "next to the stove"]),
    ("school", "at school", ["under the desk", "behind the door", "on the shelf",
                             "next to the window", "in the bag"]),
    ("lake", "by the lake", ["under the bridge", "behind a rock", "in the reeds",
                             "near the water", "next to the boat"]),
    ("hill", "on the hill", ["under a bush", "behind a rock", "in the tall grass",
                             "next to the path", "in a small cave"]),
    ("market", "at the market", ["under the cart", "behind the baskets", "next to the bread",
                                 "near the well", "on the steps"]),
]
INDOORS = ("house", "school")
TIMES = ["One day", "One morning", "One sunny day", "One afternoon", "One cold morning",
         "One warm day", "One windy day"]
HAPPY = ["happy", "glad", "proud", "very happy", "full of joy"]
SAD = ["sad", "very sad", "upset", "worried"]
GROWN = [("mother", "she"), ("father", "he"), ("grandmother", "she"), ("grandfather", "he")]
STRANGERS = [("owl", "wise old"), ("crow", "clever black"), ("horse", "big brown"),
             ("swan", "white"), ("snail", "slow little"), ("cow", "kind old"),
             ("bee", "busy little"), ("mole", "sleepy old")]
OPPOSITES = [("big", "small"), ("happy", "sad"), ("hot", "cold"), ("old", "new"), ("up", "down"),
             ("day", "night"), ("fast", "slow"), ("loud", "quiet"), ("wet", "dry"),
             ("full", "empty"), ("open", "closed"), ("light", "dark"), ("good", "bad"),
             ("soft", "hard"), ("early", "late"), ("high", "low"), ("lost", "found"),
             ("left", "right"), ("long", "short"), ("near", "far")]


def article(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def upper(text):
    return text[0].upper() + text[1:]


def capitals(text):
    """Animals are called "the bear": a capital letter where that begins a sentence."""
    return re.sub(r'(^|[.!?]"? |(?:^| )")the ', r"\1The ", text)


class Person:
    """Somebody in a story: a child with a name, or an animal that is called by its kind."""

    def __init__(self, random, kinds=None, trait=None):
        if kinds:
            self.kind = random.pick(kinds)
            she = self.kind in SHE_ANIMALS
            self.name = "the " + self.kind
        else:
            she = random.chance(50)
            self.kind = "girl" if she else "boy"
            self.name = random.pick(GIRLS if she else BOYS)
        self.he, self.him, self.his = ("she", "her", "her") if she else ("he", "him", "his")
        self.trait = random.pick([t for t in TRAITS if t != trait])

    def words(self, mark):
        return {mark: self.name, mark + "kind": self.kind, mark + "trait": self.trait,
                mark + "he": self.he, mark + "him": self.him, mark + "his": self.his,
                mark + "He": upper(self.he), mark + "His": upper(self.his),
                mark + "atrait": article(self.trait)}


class Story:
    """What a plot draws on: a child (a), an animal (b), a thing, a food, a place; `lesson` is its
    moral."""

    def __init__(self, random, indoors=(), things=OBJECTS, kinds=ANIMALS):
        self.random = random
        self.a = Person(random)
        self.b = Person(random, kinds, self.a.trait)
        place, at, spots = random.pick([p for p in PLACES
                                        if p[0] not in INDOORS or p[0] in indoors])
        first, second, third = random.some(spots, 3)
        thing = random.pick(things)
        look = random.pick(COLORS + LOOKS)
        food = random.pick(FOODS)
        grown, grown_he = random.pick(GROWN)
        animal, manner = random.pick(STRANGERS)
        self.words = {
            "place": place, "at": at, "spot1": first, "spot2": second, "spot3": third,
            "thing": thing, "look": look, "athing": article(look + " " + thing),
            "food": food, "afood": article(food), "time": random.pick(TIMES),
            "glad": random.pick(HAPPY), "sad": random.pick(SAD),
            "grown": grown, "ghe": grown_he, "gHe": upper(grown_he),
            "animal": animal, "owl": manner + " " + animal, "aowl": article(manner + " " + animal),
            "like": random.pick(ACTIVITIES), "like2": random.pick(ACTIVITIES),
            "color": random.pick(COLORS),
        }
        self.words.update(self.a.words("A"))
        self.words.update(self.b.words("B"))
        self.lesson = ""

    def say(self, *choices):
        return capitals(self.random.pick(choices).format(**self.words))

    def maybe(self, percent, *choices):
        return [self.say(*choices)] if self.random.chance(percent) else []

    def opening(self):
        out = [self.say(
            "There once was {Aatrait} {Akind} named {A}.",
            "Once there was {Aatrait} {Akind} named {A}.",
            "{A} was {Aatrait} {Akind}.",
            "Once upon a time, there was {Aatrait} {Akind} named {A}.")]
        out += self.maybe(55, "{A} liked to {like}.", "{A} loved to {like}.",
                          "Every day {A} went out to {like}.")
        return out

    def ending(self):
        return self.maybe(60, "From that day on, {A} and {B} were good friends.",
                          "After that, {A} and {B} played together every day.",
                          "{A} and {B} stayed friends for a long time.",
                          "Then {A} and {B} went home together.")

    def moral(self, *choices):
        self.lesson = self.say(*choices)
        return ["{0} learned that {1}.".format(self.a.name, self.lesson)
                if self.random.chance(65) else
                upper(self.lesson) + "."]


def plot_lost(s):
    """A thing is lost, looked for in two places, and found with a friend's help in a third."""
    start = s.opening()
    start += [s.say("{A} had {athing}.", "{AHis} best thing was {athing}.")]
    start += s.maybe(50, "{AHe} took the {thing} everywhere.", "{AHe} loved the {thing} very much.")
    middle = [s.say("{time}, the {thing} was gone.", "{time}, {A} could not find the {thing}."),
              s.say("{A} was {sad}."),
              s.say("{AHe} looked {spot1}, but it was not there.",
                    "{AHe} looked {spot1}, but the {thing} was not there.")]
    middle += s.maybe(60, "{AHe} looked {spot2} too, but found nothing.",
                      "Then {Ahe} looked {spot2}, but it was not there.")
    middle += [s.say("Then {Batrait} {Bkind} came by.", "{AHis} friend {B} came by."),
               s.say('"Why are you {sad}?" asked {B}.', '"What is wrong?" asked {B}.'),
               s.say('"I lost my {thing}," said {A}.', '"My {thing} is gone," said {A}.'),
               s.say('"I will help you," said {B}.', '"Let us look together," said {B}.')]
    end = [s.say("They looked {spot3}, and there was the {thing}!",
                 "{B} looked {spot3} and found the {look} {thing}!",
                 "Together they found the {thing} {spot3}!"),
           s.say("{A} was {glad}.", "Now {A} was {glad}."),
           s.say('"Thank you so much," said {A}.', '"Thank you! You are a good friend," said {A}.')]
    end += s.maybe(70, "They played with the {thing} until the sun went down.",
                   "They played {at} all day.")
    end += s.moral("it is good to ask a friend for help", "two can find more than one",
                   "a friend makes every problem small")
    return start, middle, end


def plot_high(s):
    """Something good is out of reach until somebody helps, and then it is shared."""
    start = s.opening()
    start += [s.say("{time}, {A} was {at}.",
                    "{time}, {A} went for a walk and came to the {place}.")]
    fruit = s.words["food"] in FRUITS
    middle = [s.say("{AHe} saw {afood} on a high branch." if fruit else
                    "{AHe} saw {afood} on top of a tall cart.",
                    "There was {afood} high up on a wall."),
              s.say('"I want that {food}," said {A}.', '"That {food} looks so good," said {A}.'),
              s.say("{AHe} jumped and jumped, but it was too high.",
                    "{AHe} jumped very high, but {Ahe} could not reach it."),
              s.say("{A} was {sad}."),
              s.say("Then {Batrait} {Bkind} came by.", "Then {Batrait} {Bkind} saw {Ahim}."),
              s.say('"Can you help me, please?" asked {A}.',
                    '"Please help me get the {food}," said {A}.'),
              s.say('"Yes," said {B}. "Climb on my back."',
                    '"Yes, I can help," said {B}. "Stand on my back."')]
    end = [s.say("{A} climbed up and got the {food}.", "Now {A} could reach the {food}."),
           s.say("{AHe} gave half of the {food} to {B}.", "{A} and {B} shared the {food}."),
           s.say('"It is so sweet," said {B}.', '"This is the best {food} of all," said {B}.',
                 '"Thank you for sharing," said {B}.'),
           s.say("They were both {glad}.", "{A} was {glad}.")]
    end += s.ending()
    end += s.moral("we can do more when we work together", "food is better when you share it",
                   "it is good to say please")
    return start, middle, end


def plot_share(s):
    """One has food, the other is hungry."""
    start = s.opening()
    start += [s.say("{time}, {Ahis} {grown} gave {Ahim} {afood}.",
                    "{time}, {Ahis} {grown} had {afood} for {Ahim}."),
              s.say("{A} took the {food} and sat down {at}.", "{A} took it and went to play {at}.")]
    middle = [s.say("There {Ahe} met {Batrait} {Bkind}.",
                    "Then {Batrait} {Bkind} came by."),
              s.say("{B} looked {sad}."),
              s.say('"Why are you {sad}?" asked {A}.', '"What is wrong?" asked {A}.'),
              s.say('"I am so hungry," said {B}.', '"I am hungry and I have no food," said {B}.'),
              s.say("{A} looked at the {food}.", "{A} thought about it."),
              s.say("{AHe} wanted to eat it all.", "It was only one {food}.")]
    end = [s.say('"You can have half of my {food}," said {A}.', '"Let us share," said {A}.'),
           s.say("{B} ate and was {glad}.", "{B} ate and began to smile."),
           s.say('"Thank you, {A}," said {B}.', '"You are so kind," said {B}.')]
    end += s.maybe(60, "Then {B} gave {A} {athing}.", "{B} showed {A} how to {like2}.")
    end += s.ending()
    end += s.moral("sharing makes two hearts glad", "it is good to share",
                   "half is more than a whole when you share it")
    return start, middle, end


def plot_rescue(s):
    """An animal is in trouble; the hero helps and is thanked."""
    trouble, cure, after = s.random.pick([
        ("stuck in the mud", "pulled with all {Ahis} might", "free"),
        ("cold and wet", "put a warm {color} blanket around {Bhim}", "warm and dry"),
        ("stuck under a branch", "lifted the branch", "free"),
        ("lost and far from home", "showed {Bhim} the way home", "home again"),
        ("very thirsty", "brought {Bhim} a cup of water", "strong again"),
        ("hurt and could not walk", "carried {Bhim} home", "safe"),
    ])
    s.words.update(trouble=trouble, cure=cure.format(**s.words), after=after)
    start = s.opening()
    start += [s.say("{time}, {A} walked to the {place}.", "{time}, {A} was {at}.")]
    middle = [s.say("{AHe} heard a small voice.", "Then {Ahe} heard somebody cry."),
              s.say('"Help! Help!" said the voice.', '"Please help me!" said the voice.'),
              s.say("{A} looked {spot1} and saw {Batrait} {Bkind}.",
                    "It was {Batrait} {Bkind} {spot1}."),
              s.say("The {Bkind} was {trouble}."),
              s.say('"I am only a little {Bkind}," said {B}. "Can you help me?"',
                    '"I can not get home," said {B}. "Please help me."'),
              s.say('"Do not be afraid," said {A}.', '"I will help you," said {A}.')]
    end = [s.say("{A} {cure}."), s.say("Soon {B} was {after}."),
           s.say('"Thank you, {A}," said {B}. "You are very brave."',
                 '"You are so kind, {A}," said {B}.'),
           s.say("{A} was {glad}.", "{A} smiled.")]
    end += s.ending()
    end += s.moral("it feels good to help", "a kind heart finds friends",
                   "even the small can help")
    return start, middle, end


def plot_fear(s):
    """A fear is overcome with somebody beside."""
    fear, act, good = s.random.pick([
        ("the dark", "looked up at the night", "the stars were shining"),
        ("the storm", "sat by the window", "the rain made a soft song"),
        ("the water", "put one foot in the water", "the water was warm"),
        ("the tall bridge", "took one small step", "the bridge was strong"),
        ("the big dog next door", "said hello to the big dog", "the dog only wanted to play"),
        ("the loud wind", "listened to the wind", "the wind was like a song"),
        ("the deep forest", "walked into the forest", "the forest was green and quiet"),
    ])
    s.words.update(fear=fear, act=act, good=good)
    start = s.opening()
    start += [s.say("But {A} was afraid of {fear}.",
                    "There was one problem. {A} was afraid of {fear}.")]
    middle = [s.say("{time}, {A} wanted to go with {Ahis} friend {B}, but {Ahe} could not.",
                    "{time}, {Ahis} friend {B} came to play, but {A} stayed in the house."),
              s.say('"What is wrong?" asked {B}.', '"Why do you not come?" asked {B}.'),
              s.say('"I am afraid of {fear}," said {A}.'),
              s.say('"I was afraid too," said {B}. "Stay close to me."',
                    '"I will stay with you," said {B}. "We can go slowly."'),
              s.say("{A} took a deep breath.", "{A} closed {Ahis} eyes for a moment.")]
    end = [s.say("Then {Ahe} {act}."),
           s.say("{A} saw that {good}.", "It was not bad at all: {good}."),
           s.say('"I did it!" said {A}.', '"I am not afraid any more!" said {A}.'),
           s.say("{B} was proud of {Ahim}.", "They laughed and were {glad}.")]
    end += s.ending()
    end += s.moral("being brave is easier with a friend", "you can be afraid and still be brave",
                   "many things are not as bad as they seem")
    return start, middle, end


def plot_quarrel(s):
    """Two want the same thing; then they take turns."""
    start = s.opening()
    start += [s.say("{time}, {A} and {Ahis} friend {B} were {at}.",
                    "{time}, {A} played {at} with {Batrait} {Bkind}."),
              s.say("They found {athing} {spot1}.", "There was {athing} {spot1}.")]
    middle = [s.say('"The {thing} is mine!" said {A}.', '"I want the {thing}!" said {A}.'),
              s.say('"No, it is mine!" said {B}.', '"No, I saw it first!" said {B}.'),
              s.say("They both pulled at the {thing}.", "They were both angry."),
              s.say("{A} ran away and sat {spot2}.", "{B} began to cry.", "The {thing} fell down."),
              s.say("{A} was {sad}.", "It was no fun to play alone."),
              s.say('Then {A} went to {B}. "I am sorry," {Ahe} said.',
                    '"I am so sorry," said {A}.'),
              s.say('"I am sorry too," said {B}.')]
    end = [s.say('"Let us take turns," said {A}.', '"You can have the {thing} first," said {A}.'),
           s.say("They played with the {look} {thing} all day.",
                 "First {B} played, and then {A} played."),
           s.say("They were both {glad}.", "They laughed and were {glad}.")]
    end += s.ending()
    end += s.moral("it is more fun to take turns", "a friend is better than a toy",
                   "it is good to say sorry")
    return start, middle, end


def plot_make(s):
    """Something is built; the first one fails, the second one works."""
    made, part, fault, works = s.random.pick([
        ("kite", "paper and string", "did not fly", "flew high above the trees"),
        ("boat", "wood and a leaf", "sank in the water", "went far across the water"),
        ("tower", "many stones", "fell down", "stood tall and strong"),
        ("nest", "grass and leaves", "fell down", "was soft and warm"),
        ("cake", "flour and milk", "was too hard", "was soft and sweet"),
        ("drum", "an old box", "made no sound", "made a loud sound"),
        ("scarf", "soft wool", "was too short", "was long and warm"),
        ("swing", "wood and string", "fell down", "went up and down"),
    ])
    s.words.update(made=made, part=part, fault=fault, works=works, amade=article(made))
    start = s.opening()
    start += [s.say("{time}, {A} wanted to make {amade}.",
                    '{time}, {A} said, "I will make {amade}."')]
    middle = [s.say("{AHe} took {part} and began to work.", "{AHe} found {part} {at}."),
              s.say("{AHe} worked all morning.", "It took a long time."),
              s.say("But the {made} {fault}.", "The first {made} {fault}."),
              s.say("{A} was {sad}.", '"I can not do it," said {A}.'),
              s.say("{AHis} {grown} came and sat down next to {Ahim}.",
                    "Then {Ahis} {grown} came to see the {made}."),
              s.say('"Try again," said {Ahis} {grown}. "I know you can do it."',
                    '"Go slowly and try again," said {Ahis} {grown}.')]
    end = [s.say("So {A} tried again.", "{A} tried one more time."),
           s.say("This time the {made} {works}!", "Now the {made} {works}!"),
           s.say('"Look! I did it!" said {A}.', '"I am so proud of you," said {Ahis} {grown}.'),
           s.say("{A} was {glad}.", "{A} showed the {made} to {Ahis} friend the {Bkind}.")]
    end += s.moral("it is good to try again", "good things take time",
                   "you can learn from what goes wrong")
    return start, middle, end


def plot_gift(s):
    """A birthday and a gift that was meant well."""
    start = s.opening()
    start += [s.say("{time}, it was the birthday of {Ahis} friend {B}.",
                    "{AHis} friend {B} had a birthday.")]
    middle = [s.say("{A} wanted to find a gift.", '"I need a gift for {B}," said {A}.'),
              s.say("{AHe} looked {at}, but found only a leaf.",
                    "{AHe} went to the {place}, but there was no gift."),
              s.say("Then {Ahe} met {aowl}.", "On the way {Ahe} met {aowl}."),
              s.say('"What does {B} like?" asked the {animal}.'),
              s.say('"{B} likes to {like2}," said {A}.'),
              s.say('"Then I know a gift," said the {animal}, and gave {Ahim} {athing}.',
                    'The {animal} smiled and showed {Ahim} {athing} {spot1}.')]
    end = [s.say('"Happy birthday!" said {A}.', '"Happy birthday, my friend!" said {A}.'),
           s.say("{B} opened the gift and saw the {look} {thing}.",
                 "{A} gave the {look} {thing} to {B}."),
           s.say('"I love it! Thank you, {A}," said {B}.', '"What a good gift!" said {B}.'),
           s.say("They ate cake and were {glad}.", "{B} was {glad}.")]
    end += s.moral("a gift from the heart is the best gift", "it is good to think of a friend",
                   "giving is as much fun as getting")
    return start, middle, end


def plot_truth(s):
    """Something breaks, and the truth is told."""
    start = s.opening()
    start += [s.say("{time}, {A} played with a ball in the house.",
                    "{time}, {A} ran and jumped in the house.")]
    middle = [s.say("There was {athing} on the table.",
                    "{AHis} {grown} had {athing} on the table."),
              s.say("The {thing} fell down and broke.", "Oh no! The {thing} fell and broke."),
              s.say("{A} was {sad}.", "{A} was afraid."),
              s.say("{AHe} wanted to hide and say nothing.",
                    "First {Ahe} wanted to say nothing."),
              s.say("But {Ahe} went to {Ahis} {grown}.", "Then {Ahis} {grown} came in."),
              s.say('"I broke the {thing}," said {A}. "I am sorry."',
                    '"It was me," said {A}. "I broke the {thing}. I am sorry."')]
    end = [s.say("{AHis} {grown} was quiet for a moment."),
           s.say('"Thank you for telling me the truth," {ghe} said.',
                 '"I am glad that you told the truth," {ghe} said.'),
           s.say("Together they fixed the {look} {thing}.", "They fixed the {thing} together."),
           s.say("{A} was {glad}.", "{A} gave {Ahis} {grown} a big hug.")]
    end += s.moral("it is good to tell the truth", "the truth makes the heart light",
                   "saying sorry is brave")
    return start, middle, end


def plot_weather(s):
    """Rain spoils a plan, and a better one is found."""
    weather, came = s.random.pick([("rain", "it began to rain"), ("snow", "it began to snow"),
                                   ("wind", "a loud wind came up")])
    game = s.random.pick(["played a game", "told stories", "made a little house of blankets",
                          "painted the {color} sea", "baked a big cake", "sang songs"])
    s.words.update(weather=weather, came=came, game=game.format(**s.words))
    start = s.opening()
    start += [s.say("{time}, {A} and {Ahis} friend {B} wanted to play {at}.",
                    "{time}, {A} and {Ahis} friend {B} wanted to play in the sun."),
              s.say("They took {athing} with them.", "{B} brought {athing}.")]
    middle = [s.say("But then {came}.", "Then the sky was dark and {came}."),
              s.say('"Oh no," said {A}. "Now we can not play."',
                    '"I do not like the {weather}," said {A}.'),
              s.say("{A} was {sad}."),
              s.say('"I have a plan," said {B}. "Come with me."',
                    '"Let us go to my house," said {B}.'),
              s.say("They ran home as fast as they could.", "They ran to the house of {B}.")]
    end = [s.say("There they {game}.", "All afternoon they {game}."),
           s.say("It was warm by the fire.", "They had hot milk and {afood}."),
           s.say('"This is more fun than the sun," said {A}.', '"This is the best day," said {A}.'),
           s.say("They were both {glad}.")]
    end += s.ending()
    end += s.moral("a bad day can become a good day", "there is always something to play",
                   "with a friend every day is sunny")
    return start, middle, end


def plot_new(s):
    """Somebody new is shy and is asked to play."""
    start = s.opening()
    start += [s.say("{time}, {A} saw a new {Bkind} {at}.",
                    "{time}, a new {Bkind} came to the {place}.")]
    middle = [s.say("The new {Bkind} sat alone {spot1}."),
              s.say("{BHe} looked {sad}.", "{BHe} looked shy."),
              s.say("{A} went over to {Bhim}.", "{A} thought about it and went over."),
              s.say('"Hello, I am {A}," {Ahe} said. "Who are you?"'),
              s.say('"I am a {Bkind}," said {B}. "I have no friends here."',
                    '"I am only a {Bkind}," said {B}. "I am new here."'),
              s.say('"Do you want to play with my {thing}?" asked {A}.',
                    '"Come and play with me," said {A}. "I have {athing}."')]
    end = [s.say("{B} smiled.", "{B} jumped up and down."), s.say('"Yes, please!" said {B}.'),
           s.say("They played with the {thing} all day.",
                 "They played with the {look} {thing} until it was dark."),
           s.say("{B} was {glad}.", "They were both {glad}.")]
    end += s.ending()
    end += s.moral("a kind word can make a friend", "it is easy to make a friend",
                   "nobody should play alone")
    return start, middle, end


def plot_race(s):
    """A race in which the winner stops to help."""
    goal = s.random.pick(["the old tree", "the red barn", "the little bridge", "the big rock",
                          "the well"])
    s.words["goal"] = goal
    start = s.opening()
    start += [s.say("{time}, {A} met {Batrait} {Bkind} {at}.",
                    "{time}, {Batrait} {Bkind} came to see {A}."),
              s.say('"Let us run to {goal}," said {B}.', '"I can run to {goal} first," said {B}.')]
    middle = [s.say("They began to run.", "One, two, three, and they ran!"),
              s.say("{A} was fast, but {B} was faster.", "First {B} was in front, and then {A}."),
              s.say("Then {B} fell down.", "But {B} fell over a stone."),
              s.say('"Ow! My foot!" said {B}.', "{B} began to cry."),
              s.say("{A} could win now.", "{A} saw {goal}. It was very near."),
              s.say("But {Ahe} stopped and went back.")]
    end = [s.say('"Are you hurt?" asked {A}.', '"I will help you," said {A}.'),
           s.say("{AHe} helped {B} to stand up.", "{AHe} gave {B} {Ahis} hand."),
           s.say("They walked to {goal} together.", "Side by side they came to {goal}."),
           s.say('"We both win," said {A}.', '"You are a true friend," said {B}.'),
           s.say("They were both {glad}.")]
    end += s.moral("a friend is more than a race", "it is good to stop and help",
                   "it is not important to be first")
    return start, middle, end


def plot_seed(s):
    """A seed is cared for and becomes something."""
    grows, gives = s.random.pick([("tree", "sweet plums"), ("flower", "{color} petals"),
                                  ("bush", "red berries"), ("tree", "big apples"),
                                  ("flower", "a sweet smell")])
    s.words.update(grows=grows, gives=gives.format(**s.words))
    start = s.opening()
    start += [s.say("{time}, {A} found a small seed {at}.",
                    "{time}, {aowl} gave {A} a small seed.")]
    middle = [s.say('"What can I do with a seed?" asked {A}.'),
              s.say('"Put it in the ground," said {Ahis} {grown}. "Then wait."',
                    '"Give it water and sun," said {Ahis} {grown}.'),
              s.say("{A} put the seed in the ground next to the house."),
              s.say("Every day {Ahe} gave it water."),
              s.say("Many days went by, but there was nothing to see.",
                    "The first week there was nothing to see."),
              s.say("{A} was {sad}, but {Ahe} did not stop.", '"Please grow," said {A}.')]
    end = [s.say("Then a little green leaf came up!", "One morning there was a green leaf!"),
           s.say("The leaf became a {grows} with {gives}."),
           s.say('"Look what I have!" said {A} to {Ahis} friend {B}.',
                 "{A} showed the {grows} to {Ahis} friend {B}."),
           s.say("They sat under the {grows} and were {glad}." if grows != "flower" else
                 "They sat by the {grows} and were {glad}.")]
    end += s.moral("good things take time", "small things can become big",
                   "it is good to wait and to care")
    return start, middle, end


PLOTS = [plot_lost, plot_high, plot_share, plot_rescue, plot_fear, plot_quarrel, plot_make,
         plot_gift, plot_truth, plot_weather, plot_new, plot_race, plot_seed]


# Where a plot may play besides outdoors, and which things fit it, where not all do.
FITTING = {
    plot_lost: {"indoors": INDOORS},
    plot_high: {"kinds": BIG_ANIMALS},
    plot_quarrel: {"indoors": INDOORS},
    plot_new: {"indoors": ("school",)},
    plot_truth: {"things": FRAGILE},
    plot_gift: {"things": GIFTS},
}


def make_story(random, plot=None):
    """A Story and its text in three parts: beginning, middle, end."""
    plot = plot or random.pick(PLOTS)
    story = Story(random, **FITTING.get(plot, {}))
    return story, [" ".join(part) for part in plot(story)]


def make_stories():
    random, seen, out = Random(STORY_SEED), set(), []
    while len(out) < STORY_COUNT:
        # Every plot as often as any other.
        _, parts = make_story(random, PLOTS[len(out) % len(PLOTS)])
        text = " ".join(parts)
        if text not in seen:
            seen.add(text)
            out.append(text)
    order = random.some(range(len(out)), len(out))
    return [out[i] for i in order]


# ---- instructions --------------------------------------------------------------------------------

def row(instruction, output, given=""):
    return {"instruction": instruction, "input": given, "output": output}


def task_write(random):
    story, parts = make_story(random)
    w = story.words
    text = " ".join(parts)
    w["aB"] = article(story.b.kind if story.b.kind in text else story.a.kind)
    thing = next((w[k] for k in ("thing", "food", "made") if k in w and w[k] in text), None)
    asks = ["Write a story about {A} and {aB}.",
            "Tell me a story about {Aatrait} {Akind} named {A}."]
    if thing:
        w["what"] = article(thing)
        asks += ["Write a story about {A} and {what}.", "Tell me a story about {what}.",
                 "Write a story about {Aatrait} {Akind} and {what}."]
    return row(random.pick(asks).format(**w), text)


def task_finish(random):
    _, parts = make_story(random)
    return row(random.pick(["Finish the story.", "How does the story end?",
                            "Write the end of the story."]), parts[2], " ".join(parts[:2]))


QUESTIONS = [
    (plot_lost, "What did {A} lose?", "{A} lost the {look} {thing}."),
    (plot_lost, "Where was the {thing}?", "The {thing} was {spot3}."),
    (plot_lost, "Who helped {A}?", "{B} helped {A}."),
    (plot_high, "What did {A} want?", "{A} wanted the {food}."),
    (plot_high, "Who helped {A}?", "{B} helped {A}."),
    (plot_share, "What did {A} share?", "{A} shared the {food}."),
    (plot_share, "Who was hungry?", "{B} was hungry."),
    (plot_rescue, "Whom did {A} help?", "{A} helped {B}."),
    (plot_rescue, "What was the problem?", "{B} was {trouble}."),
    (plot_fear, "What was {A} afraid of?", "{A} was afraid of {fear}."),
    (plot_quarrel, "What did they find?", "They found {athing}."),
    (plot_quarrel, "Where was the {thing}?", "The {thing} was {spot1}."),
    (plot_make, "What did {A} make?", "{A} made {amade}."),
    (plot_make, "Who helped {A}?", "{AHis} {grown} helped {Ahim}."),
    (plot_gift, "What was the gift?", "The gift was {athing}."),
    (plot_gift, "Who had a birthday?", "{B} had a birthday."),
    (plot_truth, "What did {A} break?", "{A} broke the {thing}."),
    (plot_truth, "Who was told the truth?", "{AHis} {grown} was told the truth."),
    (plot_weather, "What did they do?", "They {game}."),
    (plot_new, "Who was new?", "{B} was new."),
    (plot_new, "Where did {B} sit?", "{B} sat {spot1}."),
    (plot_race, "Where did they run?", "They ran to {goal}."),
    (plot_race, "Who fell down?", "{B} fell down."),
    (plot_seed, "What became of the seed?", "The seed became a {grows}."),
]


def task_question(random):
    plot, question, answer = random.pick(QUESTIONS)
    story, parts = make_story(random, plot)
    return row(question.format(**story.words), capitals(answer.format(**story.words)),
               " ".join(parts))


def task_title(random):
    story, parts = make_story(random)
    if story.lesson and random.chance(50):
        return row(random.pick(["What does the story teach?", "What can we learn from the story?"]),
                   upper(story.lesson) + ".", " ".join(parts))
    return row(random.pick(["Who is the story about?", "Who is in the story?"]),
               "The story is about {Aatrait} {Akind} named {A}.".format(**story.words),
               " ".join(parts))


LISTS = {"animals": ANIMALS + ["owl", "crow", "horse", "swan", "snail", "cow", "bee", "mole"],
         "things": OBJECTS, "foods": FOODS}
WORDS = {"colors": COLORS, "girl names": GIRLS, "boy names": BOYS}
NUMBERS = {2: "two", 3: "three", 4: "four"}


def joined(items):
    return ", ".join(items[:-1]) + " and " + items[-1]


def task_list(random):
    count = 2 + random.below(3)
    if random.chance(60):
        what = random.pick(sorted(LISTS))
        items = [article(x) for x in random.some(LISTS[what], count)]
    else:
        what = random.pick(sorted(WORDS))
        items = random.some(WORDS[what], count)
    ask = random.pick(["Name {0} {1}.", "Tell me {0} {1}.", "Can you name {0} {1}?"])
    return row(ask.format(NUMBERS[count], what), upper(joined(items)) + ".")


def task_opposite(random):
    pair = random.pick(OPPOSITES)
    first, second = pair if random.chance(50) else pair[::-1]
    ask = random.pick(["What is the opposite of {0}?", "Tell me the opposite of {0}."])
    return row(ask.format(first), "The opposite of {0} is {1}.".format(first, second))


# (why somebody was happy, why somebody was sad)
CAUSES = [("the {thing} was found", "the {thing} was lost"),
          ("{B} came to play", "{B} went home"),
          ("the sun was shining", "the rain did not stop"),
          ("the {food} was sweet", "the {food} was gone"),
          ("the {thing} was new", "the {thing} was broken"),
          ("it was warm {at}", "it was cold {at}"),
          ("{B} shared the {food}", "{B} ate all of the {food}")]


def task_mood(random):
    w = Story(random).words
    good, bad = random.pick(CAUSES)
    happy = "{A} was happy because " + good + "."
    sad = "{A} was sad because " + bad + "."
    if random.chance(50):
        return row("Make the sentence sad.", sad.format(**w), happy.format(**w))
    return row("Make the sentence happy.", happy.format(**w), sad.format(**w))


def task_fact(random):
    w = Story(random).words
    w["look"] = random.pick(COLORS)
    given, ask, answer = random.pick([
        ("The {look} {thing} is {spot1}.", "What color is the {thing}?", "The {thing} is {look}."),
        ("The {look} {thing} is {spot1}.", "Where is the {thing}?", "The {thing} is {spot1}."),
        ("{B} has {afood}.", "Who has the {food}?", "{B} has the {food}."),
        ("{A} likes to {like}.", "What does {A} like to do?", "{A} likes to {like}."),
        ("{A} and {B} are {at}.", "Where is {A}?", "{A} is {at}."),
        ("{A} gave the {look} {thing} to {B}.", "Who has the {thing} now?",
         "{B} has the {thing} now."),
    ])
    return row(capitals(ask.format(**w)), capitals(answer.format(**w)), capitals(given.format(**w)))


def task_time(random):
    w = Story(random).words
    now, then = random.pick([
        ("{A} plays {at}.", "{A} played {at}."),
        ("{A} finds the {thing}.", "{A} found the {thing}."),
        ("{A} eats the {food}.", "{A} ate the {food}."), ("{A} sees {aowl}.", "{A} saw {aowl}."),
        ("{A} runs to the {place}.", "{A} ran to the {place}."),
        ("{A} gives {B} {athing}.", "{A} gave {B} {athing}."),
        ("{A} looks {spot1}.", "{A} looked {spot1}."), ("{A} helps {B}.", "{A} helped {B}.")])
    return row("Write the sentence as if it were yesterday.", then.format(**w), now.format(**w))


# With shares of a hundred.
TASKS = [(task_write, 16), (task_finish, 7), (task_question, 10), (task_title, 3), (task_list, 16),
         (task_opposite, 2), (task_mood, 15), (task_fact, 19), (task_time, 12)]


def make_instructions():
    random, seen, out = Random(INSTRUCT_SEED), set(), []
    deck = [task for task, share in TASKS for _ in range(share)]
    while len(out) < INSTRUCT_COUNT:
        made = random.pick(deck)(random)
        key = tuple(made.values())
        if key not in seen:
            seen.add(key)
            out.append(made)
    return out


def main(folder):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "stories.txt"), "w", encoding="ascii", newline="\n") as f:
        f.write("\n<|endoftext|>\n".join(make_stories()) + "\n")
    with open(os.path.join(folder, "instruct.jsonl"), "w", encoding="ascii", newline="\n") as f:
        for made in make_instructions():
            f.write(json.dumps(made) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "presets/data")
