/* Prints the features of one row: lookup FILE VIEW KEY..., where i:5 is an integer and s:abc a text.
 *
 * cc -std=c11 -O2 -Wall -Wextra -I fleet_assets/edge/c -o lookup fleet_assets/edge/c/lookup.c -lm
 */
#include "fleet_snapshot.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: lookup FILE VIEW KEY...\n");
        return 2;
    }
    int file = open(argv[1], O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status)) {
        perror(argv[1]);
        return 1;
    }
    void *data = status.st_size ? mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    struct fleet_snapshot snapshot;
    if (data == MAP_FAILED || fleet_snapshot_open(&snapshot, data, (uint64_t)status.st_size)) {
        fprintf(stderr, "%s is no usable snapshot\n", argv[1]);
        return 1;
    }
    const struct fleet_view *view = fleet_snapshot_view(&snapshot, argv[2]);
    if (!view) {
        fprintf(stderr, "%s has no view %s\n", argv[1], argv[2]);
        return 1;
    }
    struct fleet_key key;
    fleet_key_clear(&key);
    for (int index = 3; index < argc; index++) {
        const char *value = argv[index] + 2;
        size_t length = strlen(argv[index]) < 2 ? 0 : strlen(value);
        int failed = length > 255 || (argv[index][0] == 'i' ? fleet_key_add_int64(&key, strtoll(value, NULL, 10))
                                                            : fleet_key_add_text(&key, value, (uint16_t)length));
        if (failed) {
            fprintf(stderr, "the key is too long\n");
            return 1;
        }
    }
    const unsigned char *row = fleet_find(&snapshot, view, &key);
    if (!row) {
        printf("missing\n");
        return 0;
    }
    printf("event_time_ns %lld\n", (long long)fleet_event_time_ns(view, row));
    for (uint32_t column = 0; column < view->columns; column++)
        printf("%s %.17g\n", snapshot.columns[view->first_column + column].name, fleet_value(&snapshot, view, row, column));
    return 0;
}
