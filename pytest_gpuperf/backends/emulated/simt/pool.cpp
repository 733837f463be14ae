// The OS threads behind the device, and how Python starts a launch, waits for it and stops it.
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <thread>

#include "races.hpp"
#include "runtime.hpp"

namespace simt {
namespace {

// OS threads that live as long as the process, so that a launch costs a wake-up and not a creation.
struct Pool {
  pid_t owner = getpid();
  std::mutex mutex;
  std::condition_variable wake, done;
  uint64_t generation = 0;
  unsigned wanted = 0, running = 0;
  std::unique_ptr<Launch> launch;
  std::vector<pthread_t> threads;
  std::vector<Worker *> workers;

  void loop(unsigned index) {
    Worker &worker = *new Worker;
    worker.thread = pthread_self();
    prepare_signal_stack();
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex);
    workers.push_back(&worker);
    for (;;) {
      wake.wait(lock, [&] { return generation != seen; });
      seen = generation;
      if (index >= wanted) continue;
      lock.unlock();
      work(worker, *launch);
      lock.lock();
      if (--running == 0) done.notify_all();
    }
  }

  void start(const Request &request, Span text, Span image) {
    std::lock_guard<std::mutex> lock(mutex);
    launch = std::make_unique<Launch>();
    launch->request = request;
    launch->text = text;
    launch->image = image;
    launch->blocks = uint64_t(request.grid.x) * request.grid.y * request.grid.z;
    launch->threads = request.block.x * request.block.y * request.block.z;
    uint32_t before = generation;
    begin_launch_order(*launch);
    begin_launch_shadows(request, before != generation);
    while (threads.size() < request.workers) {
      unsigned index = threads.size();
      std::thread thread([this, index] { loop(index); });
      threads.push_back(thread.native_handle());
      thread.detach();
    }
    wanted = running = request.workers;
    generation++;
    wake.notify_all();
  }
};

// A thread that has run through so many looks at the launch may poll memory that is not volatile.
constexpr unsigned kLooks = 10;

void nudge(Worker &worker) {
  uint64_t runs = __atomic_load_n(&worker.runs, __ATOMIC_RELAXED);
  worker.looks = runs == worker.runs_seen ? worker.looks + 1 : 0;
  worker.runs_seen = runs;
  if (worker.looks < kLooks) return;
  worker.looks = 0;
  worker.nudged = true;
  worker.attention = true;
  interrupt_thread(worker.thread);  // it may check nothing but bounds, which the kernel's own code does
}

// Never destroyed: its threads sleep on it when the process exits. A forked child has none of its
// parent's threads and makes its own pool.
Pool *pool = nullptr;

}  // namespace
}  // namespace simt

extern "C" {

void gpuperf_image(const void *function, simt::Span *text, simt::Span *image);  // faults.cpp

void gpuperf_start(const simt::Request *request) {
  using namespace simt;
  if (!pool || pool->owner != getpid()) pool = new Pool;
  result.fault = Fault{};
  memset(result.traffic, 0, sizeof result.traffic);
  result.traced = 0;
  result.switched_off = {};
  Span text{}, image{};
  gpuperf_image(reinterpret_cast<const void *>(request->body), &text, &image);
  install_handlers();
  pool->start(*request, text, image);
}

// Waits for the launch to end, at most so long; true when it has.
int gpuperf_wait(int milliseconds) {
  using namespace simt;
  std::unique_lock<std::mutex> lock(pool->mutex);
  if (!pool->done.wait_for(lock, std::chrono::milliseconds(milliseconds), [&] { return pool->running == 0; })) {
    for (Worker *worker : pool->workers) nudge(*worker);
    return 0;
  }
  restore_handlers();
  fflush(stdout);
  return 1;
}

// Asks a launch to end; to be repeated until it has, since a thread is only stopped inside kernel code.
void gpuperf_stop() {
  using namespace simt;
  std::lock_guard<std::mutex> lock(pool->mutex);
  pool->launch->stop = true;
  for (Worker *worker : pool->workers) worker->attention = true;
  if (pool->running == 0) return;
  for (unsigned i = 0; i < pool->wanted; i++) interrupt_thread(pool->threads[i]);
}

void gpuperf_result(simt::Fault *fault, simt::Traffic *traffic, uint64_t *traced) {
  *fault = simt::result.fault;
  memcpy(traffic, simt::result.traffic, sizeof simt::result.traffic);
  *traced = simt::result.traced;
  count_switched_off(traffic, simt::result.switched_off);
}
}
