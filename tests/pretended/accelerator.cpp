// A simulated accelerator. Its memory is main memory, and its kernels are those of the CPU.
//
// It behaves as a real card does where a CPU behaves otherwise: tensors have their own device; an
// operation with tensors of two devices fails; memory is counted and can run out; a copy on a side
// stream is done only when somebody waits for it.

#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_scaled_dot_product_fused_attention_overrideable_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>
#include <torch/library.h>

#include <array>
#include <deque>
#include <functional>
#include <mutex>
#include <unordered_set>

namespace {

constexpr auto CARD = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex CARDS = 2;

thread_local c10::DeviceIndex current_card = 0;

// Memory

struct Usage {
  int64_t live = 0;
  int64_t peak = 0;
  int64_t limit = INT64_MAX;
};

std::mutex lock;
std::array<Usage, CARDS> memory;

struct Block {
  void* start;
  int64_t size;
  c10::DeviceIndex card;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  {
    std::lock_guard guard(lock);
    memory[block->card].live -= block->size;
  }
  std::free(block->start);
  delete block;
}

struct CardAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    const auto card = current_card;
    const c10::Device device(CARD, card);
    if (size == 0) return {nullptr, device};
    const int64_t taken = (size + 511) / 512 * 512;  // as CUDA's allocator rounds
    {
      std::lock_guard guard(lock);
      auto& usage = memory[card];
      TORCH_CHECK_WITH(
          OutOfMemoryError, usage.live + taken <= usage.limit, "Card ", int(card),
          " is out of memory. Tried to allocate ", taken, " bytes; ", usage.live, " of ",
          usage.limit, " are in use.");
      usage.live += taken;
      usage.peak = std::max(usage.peak, usage.live);
    }
    void* start = std::aligned_alloc(512, taken);
    return {start, new Block{start, taken, card}, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
} card_allocator;

std::unordered_set<const void*> pinned;

void unpin(void* start) {
  std::lock_guard guard(lock);
  pinned.erase(start);
  std::free(start);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* start = std::aligned_alloc(512, (size + 511) / 512 * 512);
    std::lock_guard guard(lock);
    pinned.insert(start);
    return {start, start, &unpin, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &unpin; }
  void copy_data(void* to, const void* from, size_t size) const override {
    default_copy_data(to, from, size);
  }
} pinned_allocator;

// Streams. The default stream (0) works at once. The others work when somebody waits for them.

std::recursive_mutex at_work;  // threads share the streams, and waiting may start another wait

struct Queue {
  std::deque<std::function<void()>> work;
  int64_t done = 0;
  int64_t end() const { return done + int64_t(work.size()); }
  void run_until(int64_t mark) {
    for (; done < mark && !work.empty(); ++done) {
      auto next = std::move(work.front());
      work.pop_front();
      next();
    }
  }
};

struct Event {
  c10::StreamId stream;
  int64_t mark;
};

std::unordered_map<c10::StreamId, Queue> queues;
thread_local std::array<c10::StreamId, CARDS> current_stream{};
c10::StreamId newest_stream = 0;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return CARD; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto old = getDevice();
    setDevice(device);
    return old;
  }
  c10::Device getDevice() const override { return {CARD, current_card}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < CARDS, "There is no card ", int(device.index()));
    if (device.index() >= 0) current_card = device.index();
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.index() >= 0) current_card = device.index();
  }
  c10::Stream getStream(c10::Device device) const override {
    const auto card = device.index() < 0 ? current_card : device.index();
    return c10::Stream(c10::Stream::UNSAFE, {CARD, card}, current_stream[card]);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    const auto card = device.index() < 0 ? current_card : device.index();
    std::lock_guard guard(at_work);
    return c10::Stream(c10::Stream::UNSAFE, {CARD, card}, ++newest_stream);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    auto old = getStream(stream.device());
    current_stream[stream.device_index()] = stream.id();
    return old;
  }
  void record(
      void** event, const c10::Stream& stream, c10::DeviceIndex,
      c10::EventFlag) const override {
    std::lock_guard guard(at_work);
    if (*event == nullptr) *event = new Event;
    *static_cast<Event*>(*event) = {stream.id(), queues[stream.id()].end()};
  }
  void block(void* event, const c10::Stream& stream) const override {
    std::lock_guard guard(at_work);
    const auto* at = static_cast<Event*>(event);
    auto wait = [at = *at] { queues[at.stream].run_until(at.mark); };
    if (stream.id() == 0) wait();
    else queues[stream.id()].work.emplace_back(wait);
  }
  bool queryEvent(void* event) const override {
    std::lock_guard guard(at_work);
    const auto* at = static_cast<Event*>(event);
    return queues[at->stream].done >= at->mark;
  }
  void synchronizeEvent(void* event) const override {
    std::lock_guard guard(at_work);
    const auto* at = static_cast<Event*>(event);
    if (at) queues[at->stream].run_until(at->mark);
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
  bool queryStream(const c10::Stream& stream) const override {
    std::lock_guard guard(at_work);
    return queues[stream.id()].work.empty();
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    std::lock_guard guard(at_work);
    auto& queue = queues[stream.id()];
    queue.run_until(queue.end());
  }
  void synchronizeDevice(c10::DeviceIndex) const override {
    std::lock_guard guard(at_work);
    for (auto& [stream, queue] : queues) queue.run_until(queue.end());
  }
  c10::DeviceIndex deviceCount() const noexcept override { return CARDS; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return CARDS; }
  void setCurrentDevice(c10::DeviceIndex card) const override { current_card = card; }
  c10::DeviceIndex getCurrentDevice() const override { return current_card; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex card) const override {
    return std::exchange(current_card, card);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex card) const override {
    return card < 0 ? current_card : exchangeDevice(card);
  }
  bool isPinnedPtr(const void* data) const override {
    std::lock_guard guard(lock);
    return pinned.count(data) > 0;
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    c10::DeviceGuard guard(storage.device());
    auto moved = card_allocator.allocate(size);
    if (moved.get()) std::memcpy(moved.get(), storage.data(), std::min(size, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(moved));
    storage.set_nbytes(size);
  }
} hooks;

// Tensors

at::Tensor on_cpu(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == CARD ? tensor.cpu() : tensor;
}

/// A tensor on the CPU with the memory of one on a card.
at::Tensor seen_from_cpu(const at::Tensor& tensor) {
  if (tensor.device().type() != CARD) return tensor;
  return at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(),
      [tensor](void*) {}, tensor.options().device(c10::kCPU).requires_grad(false));
}

at::Tensor empty_strided(
    c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(device.value_or(c10::Device(CARD)));
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), &card_allocator,
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype));
}

at::Tensor empty(
    c10::SymIntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device> device, std::optional<bool>,
    std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(device.value_or(c10::Device(CARD)));
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(sizes), &card_allocator,
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype), format);
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const auto card = to.device().type() == CARD ? to.device() : from.device();
  const auto stream = current_stream[card.index()];
  auto copy = [from = from.detach(), to = to.detach()] {
    const auto seen = seen_from_cpu(from);
    seen_from_cpu(to).copy_(from.is_conj() ? seen.conj() : seen);
  };
  const auto& host = to.device().type() == CARD ? from : to;
  const bool at_once = host.device().type() == c10::kCPU && !host.is_pinned();
  std::lock_guard guard(at_work);
  auto& queue = queues[stream];
  if (stream == 0 && non_blocking && to.device().type() == c10::kCPU && !at_once) {
    queue.work.emplace_back(copy);  // the result is valid after somebody has waited
    return to;
  }
  if (stream == 0 || !non_blocking || at_once) {
    queue.run_until(queue.end());
    copy();
  } else {
    queue.work.emplace_back(copy);
  }
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar local_scalar(const at::Tensor& tensor) {
  return at::_local_scalar_dense(seen_from_cpu(tensor));
}

const at::Tensor& resize(
    const at::Tensor& tensor, c10::SymIntArrayRef sizes, std::optional<at::MemoryFormat>) {
  const auto shape = C10_AS_INTARRAYREF_SLOW(sizes);
  if (tensor.sizes() == shape) return tensor;  // a view keeps its strides
  const auto need = (tensor.storage_offset() + c10::multiply_integers(shape)) * tensor.itemsize();
  if (size_t(need) > tensor.storage().nbytes()) hooks.resizePrivateUse1Bytes(tensor.storage(), need);
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  return tensor;
}

/// Whether `tensor.data = other` is allowed. From the CPU to a card and back it is, as with CUDA.
bool can_take_its_place(const at::Tensor& tensor, const at::Tensor& other) {
  const auto dense = [](const at::Tensor& one) {
    return one.layout() == at::kStrided && (one.is_cpu() || one.device().type() == CARD);
  };
  return dense(tensor) && dense(other);
}

at::Tensor& set_storage(
    at::Tensor& tensor, at::Storage storage, int64_t offset, c10::IntArrayRef sizes,
    c10::IntArrayRef strides) {
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_storage_offset(offset);
  impl->set_sizes_and_strides(sizes, strides.empty() && !sizes.empty()
      ? c10::IntArrayRef(at::detail::defaultStrides(sizes)) : strides);
  return tensor;
}

at::Tensor& set_source_storage_offset(
    at::Tensor& tensor, at::Storage storage, c10::SymInt offset, c10::SymIntArrayRef sizes,
    c10::SymIntArrayRef strides) {
  return set_storage(
      tensor, std::move(storage), offset.expect_int(), C10_AS_INTARRAYREF_SLOW(sizes),
      C10_AS_INTARRAYREF_SLOW(strides));
}

at::Tensor& set_source_storage(at::Tensor& tensor, at::Storage storage) {
  const auto count = int64_t(storage.nbytes() / tensor.itemsize());
  return set_storage(tensor, std::move(storage), 0, {count}, {1});
}

at::Tensor& set_source_tensor(at::Tensor& tensor, const at::Tensor& source) {
  return set_storage(
      tensor, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

at::Tensor view(const at::Tensor& tensor, c10::SymIntArrayRef sizes) {
  return at::native::view(tensor, C10_AS_INTARRAYREF_SLOW(sizes));
}

at::Tensor as_strided(
    const at::Tensor& tensor, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
    std::optional<c10::SymInt> offset) {
  std::optional<int64_t> from;
  if (offset) from = offset->expect_int();
  return at::native::as_strided_tensorimpl(
      tensor, C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), from);
}

at::Tensor reshape_alias(
    const at::Tensor& tensor, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides) {
  return as_strided(tensor, sizes, strides, std::nullopt);
}

// Operations

void check_device(const c10::OperatorHandle& op, const at::Tensor& tensor, c10::Device& found) {
  if (!tensor.defined() || (tensor.device().is_cpu() && tensor.dim() == 0)) return;
  if (found.is_meta()) found = tensor.device();
  TORCH_CHECK(
      found == tensor.device(), "Expected all tensors to be on the same device, but ",
      op.schema().name(), " found at least two devices, ", found, " and ", tensor.device(), "!");
}

/// An operation without a kernel in this file. The CPU's kernel does it.
void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  c10::Device found(c10::kMeta);
  for (const auto& value : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (value.isTensor()) check_device(op, value.toTensor(), found);
    else if (value.isTensorList())
      for (const at::Tensor& tensor : value.toTensorVector()) check_device(op, tensor, found);
    // a list of optional tensors has indices, which may be on the CPU
  }
  c10::OptionalDeviceGuard guard;
  if (found.type() == CARD) guard.reset_device(found);
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}

/// The tensor in a dtype that CPUs multiply fast: half precision becomes float32.
at::Tensor for_product(const at::Tensor& tensor) {
  const auto there = on_cpu(tensor);
  return there.defined() && c10::isReducedFloatingType(there.scalar_type()) ? there.to(at::kFloat)
                                                                            : there;
}

at::Tensor back(const at::Tensor& result, const at::Tensor& like) {
  return result.defined() ? result.to(like.options()) : result;
}

void same_device(std::initializer_list<at::Tensor> tensors) {
  for (const auto& tensor : tensors)
    TORCH_CHECK(
        !tensor.defined() || tensor.device() == tensors.begin()->device(),
        "Expected all tensors to be on the same device, but found at least two devices, ",
        tensors.begin()->device(), " and ", tensor.device(), "!");
}

at::Tensor convolution(
    const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
    c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
    bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  const auto shift = bias.value_or(at::Tensor());
  same_device({input, weight, shift});
  c10::DeviceGuard guard(input.device());
  const auto x = for_product(input), kernel = for_product(weight), added = for_product(shift);
  const bool one_dnn = x.scalar_type() == at::kFloat && !transposed && x.numel() &&
      at::globalContext().userEnabledMkldnn() && at::hasMKLDNN();
  return back(
      // torch does not use it for small inputs, and its other kernel is ten times slower
      one_dnn ? at::mkldnn_convolution_symint(x, kernel, added, padding, stride, dilation, groups)
              : at::convolution_symint(
                    x, kernel, added, stride, padding, dilation, transposed, output_padding,
                    groups),
      input);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight,
    c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
    bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups,
    std::array<bool, 3> mask) {
  same_device({grad, input, weight});
  c10::DeviceGuard guard(input.device());
  const c10::SymInt channels = transposed ? weight.size(1) * groups : c10::SymInt(weight.size(0));
  auto [of_input, of_weight, of_bias] = at::convolution_backward_symint(
      for_product(grad), for_product(input), for_product(weight),
      c10::SymIntArrayRef(&channels, 1), stride, padding, dilation, transposed, output_padding,
      groups, mask);
  return {back(of_input, input), back(of_weight, weight), back(of_bias, weight)};
}

at::Tensor mm(const at::Tensor& a, const at::Tensor& b) {
  same_device({a, b});
  c10::DeviceGuard guard(a.device());
  return back(at::mm(for_product(a), for_product(b)), a);
}

at::Tensor bmm(const at::Tensor& a, const at::Tensor& b) {
  same_device({a, b});
  c10::DeviceGuard guard(a.device());
  return back(at::bmm(for_product(a), for_product(b)), a);
}

at::Tensor addmm(
    const at::Tensor& shift, const at::Tensor& a, const at::Tensor& b, const at::Scalar& beta,
    const at::Scalar& alpha) {
  same_device({shift, a, b});
  c10::DeviceGuard guard(a.device());
  return back(at::addmm(for_product(shift), for_product(a), for_product(b), beta, alpha), a);
}

/// Attention in one kernel, as on cards, if no gradients are needed.
int64_t choose_attention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const std::optional<at::Tensor>&, double, bool, std::optional<double>, bool) {
  const bool learnt = at::GradMode::is_enabled() &&
      (query.requires_grad() || key.requires_grad() || value.requires_grad());
  return int64_t(learnt ? at::SDPBackend::math : at::SDPBackend::overrideable);
}

std::tuple<
    at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt, at::Tensor,
    at::Tensor, at::Tensor>
attention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const std::optional<at::Tensor>& bias, double dropout, bool causal, bool,
    std::optional<double> scale) {
  const auto mask = bias.value_or(at::Tensor());
  same_device({query, key, value, mask});
  c10::DeviceGuard guard(query.device());
  const auto shift = mask.defined() && mask.is_floating_point() ? for_product(mask) : on_cpu(mask);
  auto result = at::scaled_dot_product_attention(
      for_product(query), for_product(key), for_product(value),
      shift.defined() ? std::optional(shift) : std::nullopt, dropout, causal, scale);
  const at::Tensor none;
  return {back(result, query), none, none, none, key.sym_size(2), key.sym_size(2),
          none, none, none};
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar);
  m.impl("resize_", resize);
  m.impl("_has_compatible_shallow_copy_type", can_take_its_place);
  m.impl("set_.source_Storage_storage_offset", set_source_storage_offset);
  m.impl("set_.source_Storage", set_source_storage);
  m.impl("set_.source_Tensor", set_source_tensor);
  m.impl("view", view);
  m.impl("as_strided", as_strided);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("view_as_real", at::native::view_as_real);
  m.impl("view_as_complex", at::native::view_as_complex);
  // in one kernel, as on cards; torch's other way makes more tensors
  m.impl("native_layer_norm", torch::CppFunction::makeFromBoxedFunction<&fallback>());
  m.impl("native_group_norm", torch::CppFunction::makeFromBoxedFunction<&fallback>());
  m.impl("mm", mm);
  m.impl("bmm", bmm);
  m.impl("addmm", addmm);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
  m.impl("_scaled_dot_product_fused_attention_overrideable", attention);
}

TORCH_LIBRARY_IMPL(aten, Conjugate, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(_, AutogradPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

}  // namespace

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &choose_attention);
}  // namespace at::native

// Mixed precision: which operations compute in half precision, and which in float32

namespace at::autocast {
namespace {

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

#define IN_HALF(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define IN_FLOAT(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  AT_FORALL_LOWER_PRECISION_FP(IN_HALF)
  AT_FORALL_FP32(IN_FLOAT)
}

}  // namespace
}  // namespace at::autocast

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  c10::SetAllocator(CARD, &card_allocator);
  at::RegisterPrivateUse1HooksInterface(&hooks);
  m.attr("CARDS") = int(CARDS);
  m.def("live", [](int card) { return memory[card].live; });
  m.def("peak", [](int card) { return memory[card].peak; });
  m.def("limit", [](int card) { return memory[card].limit; });
  m.def("set_limit", [](int card, int64_t bytes) { memory[card].limit = bytes; });
  m.def("reset_peak", [](int card) { memory[card].peak = memory[card].live; });
  m.def("current_card", [] { return int(current_card); });
  m.def("set_card", [](int card) { current_card = card; });
}
