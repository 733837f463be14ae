/*
 * The SM's clock under load: two of these stamps around launches that last much longer than the device's timer
 * steps (by some 32 us on H100s). A file of its own, since stored baselines hold the hash of sentinels.cu.
 */

/* Each SM that runs a block leaves its cycles and the nanoseconds of one moment, if there is a place for it. */
extern "C" __global__ void stamp(unsigned long long *stamps, int places)
{
    unsigned int sm;
    unsigned long long now;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    if (sm >= (unsigned int)places)
        return;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    stamps[2 * sm] = clock64();
    stamps[2 * sm + 1] = now;
}
