"""torch_xla's CPU plugin as four devices, that compiles what a TPU would be given, but optimises it less."""

import os

os.environ["PJRT_DEVICE"], os.environ["CPU_NUM_DEVICES"] = "CPU", "4"
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
