// A block backend in memory that completes its requests from a thread of its own, in reverse order
// of submission, with limits that make the host split. Its operations: read, write. The block at 64
// KiB fails.
#include <cowbird/blockdev.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define SIZE (256 * 1024)

struct store {
  const struct cowbird_host *host;
  struct cowbird_device *device;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  struct cowbird_block_request *newest; /* linked by plugin_data */
  int ending;
  unsigned char bytes[SIZE];
};

static int perform(struct store *store, struct cowbird_block_request *request) {
  unsigned char *at = store->bytes + request->offset;
  if (request->offset <= 65536 && request->offset + request->length > 65536) return -EIO;
  for (uint32_t i = 0; i < request->iov_count; ++i) {
    if (request->operation == COWBIRD_BLOCK_READ) {
      memcpy(request->iov[i].iov_base, at, request->iov[i].iov_len);
    } else {
      memcpy(at, request->iov[i].iov_base, request->iov[i].iov_len);
    }
    at += request->iov[i].iov_len;
  }
  return 0;
}

static void *run(void *self) {
  struct store *store = self;
  pthread_mutex_lock(&store->lock);
  for (;;) {
    while (!store->newest && !store->ending) pthread_cond_wait(&store->wake, &store->lock);
    struct cowbird_block_request *request = store->newest;
    if (!request) break;
    store->newest = request->plugin_data;
    pthread_mutex_unlock(&store->lock);
    store->host->block_complete(store->device, request, perform(store, request));
    pthread_mutex_lock(&store->lock);
  }
  pthread_mutex_unlock(&store->lock);
  return NULL;
}

static int create(const struct cowbird_host *host, struct cowbird_device *device,
                  const struct cowbird_config *config, void **out) {
  struct store *store = calloc(1, sizeof *store);
  sigset_t all, old;
  (void)config;
  store->host = host;
  store->device = device;
  pthread_mutex_init(&store->lock, NULL);
  pthread_cond_init(&store->wake, NULL);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  if (pthread_create(&store->thread, NULL, run, store) != 0) abort();
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  *out = store;
  return 0;
}

static void destroy(void *self) {
  struct store *store = self;
  pthread_mutex_lock(&store->lock);
  store->ending = 1;
  pthread_cond_signal(&store->wake);
  pthread_mutex_unlock(&store->lock);
  pthread_join(store->thread, NULL);
  pthread_mutex_destroy(&store->lock);
  pthread_cond_destroy(&store->wake);
  free(store);
}

static int get_info(void *self, struct cowbird_block_info *out) {
  (void)self;
  out->size = SIZE;
  out->block_size = 1024;
  out->max_bytes = 4096;
  out->queue_depth = 3;
  out->can_write_zeroes = COWBIRD_SUPPORT_EMULATE;
  return 0;
}

static void submit(void *self, struct cowbird_block_request *const *requests, uint32_t count) {
  struct store *store = self;
  pthread_mutex_lock(&store->lock);
  for (uint32_t i = 0; i < count; ++i) {
    requests[i]->plugin_data = store->newest;
    store->newest = requests[i];
  }
  pthread_cond_signal(&store->wake);
  pthread_mutex_unlock(&store->lock);
}

static const struct cowbird_block_ops ops = {
    .header = {sizeof(struct cowbird_block_ops), COWBIRD_KIND_BLOCK},
    .create = create,
    .destroy = destroy,
    .get_info = get_info,
    .submit = submit,
};

COWBIRD_PLUGIN_EXPORT const struct cowbird_plugin cowbird_plugin_descriptor = {
    COWBIRD_PLUGIN_HEADER(COWBIRD_KIND_BLOCK),
    .name = "threaded_block",
    .version = "1",
    .ops = &ops,
};
