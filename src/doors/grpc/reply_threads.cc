#include "doors/grpc/reply_threads.h"

namespace uccp::doors {

thread_local int OnDoorThread::depth_ = 0;

ReplyThreads::ReplyThreads(size_t threads) {
  for (size_t i = 0; i < threads; ++i) {
    workers_.push_back(std::make_unique<Worker>());
    Worker& worker = *workers_.back();
    worker.thread = std::thread([&worker] { work(worker); });
  }
}

void ReplyThreads::stop() {
  for (const auto& worker : workers_) {
    {
      std::lock_guard lock(worker->mutex);
      worker->closed = true;
    }
    worker->wake.notify_one();
    if (worker->thread.joinable()) worker->thread.join();
  }
}

void ReplyThreads::post(size_t key, Task task) {
  Worker& worker = *workers_[key % workers_.size()];
  bool first = false;
  {
    std::lock_guard lock(worker.mutex);
    if (worker.closed) return;
    first = worker.queue.empty();
    worker.queue.push_back(std::move(task));
  }
  if (first) worker.wake.notify_one();
}

void ReplyThreads::work(Worker& worker) {
  const OnDoorThread mark;
  std::vector<Task> batch;
  while (true) {
    {
      std::unique_lock lock(worker.mutex);
      worker.wake.wait(lock, [&] { return worker.closed || !worker.queue.empty(); });
      if (worker.queue.empty()) return;
      batch.swap(worker.queue);
    }
    for (Task& task : batch) task();
    batch.clear();
  }
}

}  // namespace uccp::doors
