/* A recipe as small as it gets, for tests that train. */
#ifndef TESTS_APP_TINY_H
#define TESTS_APP_TINY_H

/* Writes text.txt and tiny.json into the sandbox; the path of the recipe, to be freed. It saves and
 * evaluates every 4 steps and chooses rows every 4 steps. */
char *tiny_recipe(int steps);

#endif
