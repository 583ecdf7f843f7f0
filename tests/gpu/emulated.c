/* Small shapes, in both orders, on the emulated device. */
#include "gpu/cases.h"
#include "simt/order.h"

int64_t device_size(void)
{
    return 1;
}

void device_order(bool reverse)
{
    simt_reverse(reverse);
}
