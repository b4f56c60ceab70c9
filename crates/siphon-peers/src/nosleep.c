/*
 * Preloaded into Ceph's benchmark tools: a sleep of no time takes no time.
 *
 * ceph_perf_msgr_server and ceph_perf_msgr_client call usleep(think time) for every message that
 * they dispatch, and the kernel makes some 60 us (its timer slack and a switch of threads) of a
 * think time of 0. Any other sleep stays as long as it was.
 *
 * Built without the C library, so that it fits whichever one the tool is loaded with.
 */
struct span {
    long seconds;
    long nanoseconds;
};

extern int nanosleep(const struct span *wanted, struct span *left);

int usleep(unsigned int microseconds)
{
    struct span wanted = { microseconds / 1000000, microseconds % 1000000 * 1000L };

    return microseconds ? nanosleep(&wanted, 0) : 0;
}
