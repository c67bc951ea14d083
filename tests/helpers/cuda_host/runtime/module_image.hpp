// The compiled module itself as memory: where its constants lie.
#pragma once

namespace cuda_host {

bool module_image_holds(const void* p);

}  // namespace cuda_host
