#!/bin/sh
# Builds PyCUDA, which has no wheels, from nvcc and headers as PyPI has them; no system toolkit is needed.
# Usage: tools/install-pycuda.sh [PYTHON]
set -eu
python=${1:-python3}
"$python" -c 'import pycuda' 2>/dev/null && exit 0
"$python" -m pip install -q --disable-pip-version-check numpy "cuda-toolkit[nvcc,cccl,profiler]==13.0.*"
CU=$("$python" -c 'import nvidia.cu13 as m; print(list(m.__path__)[0])')
# Only where no driver is installed (an image build): something to link against.
if ! ldconfig -p | grep -q 'libcuda\.so'; then
  mkdir -p "$CU/lib/stubs"
  echo 'int cuInit(void){return 0;}' | gcc -shared -fPIC -x c - -o "$CU/lib/stubs/libcuda.so" -Wl,-soname,libcuda.so.1
fi
PATH="$CU/bin:$PATH" "$python" -m pip install -q --disable-pip-version-check --no-cache-dir pycuda \
  "-C--global-option=--conf:CUDA_ENABLE_CURAND=False"
