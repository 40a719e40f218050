// Asks TensorFlow's own placer where it would put the nodes of a SavedModel on a machine with a GPU.
//
//   placer MODEL SIGNATURE...   one line of JSON a signature: {device: {operation: nodes}}
//
// The GPU is a name alone: nothing runs. Calls are inlined, loops and branches lowered first, so that
// what is in them is placed too.

#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tensorflow/core/common_runtime/device_set.h"
#include "tensorflow/core/common_runtime/graph_constructor.h"
#include "tensorflow/core/common_runtime/optimization_registry.h"
#include "tensorflow/core/common_runtime/placer.h"
#include "tensorflow/core/framework/device.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/graph_def_util.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/protobuf/saved_model.pb.h"
#include "tensorflow/core/public/session_options.h"

namespace {

using namespace tensorflow;  // NOLINT: a program of one file

class NamedDevice : public Device {
 public:
  explicit NamedDevice(const DeviceAttributes& attributes) : Device(nullptr, attributes) {}
  absl::Status Sync() override { return absl::OkStatus(); }
  Allocator* GetAllocator(AllocatorAttributes) override { return nullptr; }

  static std::unique_ptr<Device> Of(const std::string& type) {
    DeviceAttributes attributes;
    attributes.set_name("/job:localhost/replica:0/task:0/device:" + type + ":0");
    attributes.set_device_type(type);
    return std::make_unique<NamedDevice>(attributes);
  }
};

absl::Status Placed(const MetaGraphDef& meta_graph, std::unique_ptr<Graph>* graph) {
  GraphDef definition = meta_graph.graph_def();
  FunctionLibraryDefinition library(OpRegistry::Global(), definition.library());
  TF_RETURN_IF_ERROR(AddDefaultAttrsToGraphDef(&definition, library, 0));
  *graph = std::make_unique<Graph>(OpRegistry::Global());
  GraphConstructorOptions options;
  options.allow_internal_ops = true;
  options.add_default_attributes = true;
  TF_RETURN_IF_ERROR(ConvertGraphDefToGraph(options, definition, graph->get()));

  static const auto* cpu = NamedDevice::Of("CPU").release();
  static const auto* gpu = NamedDevice::Of("GPU").release();
  DeviceSet devices;
  devices.AddDevice(const_cast<Device*>(cpu));
  devices.AddDevice(const_cast<Device*>(gpu));
  devices.set_client_device(const_cast<Device*>(cpu));

  SessionOptions session;
  session.config.set_allow_soft_placement(true);
  session.config.mutable_graph_options()->mutable_optimizer_options()->set_do_function_inlining(
      true);
  FunctionLibraryDefinition functions((*graph)->flib_def());
  GraphOptimizationPassOptions passes;
  passes.session_options = &session;
  passes.graph = graph;
  passes.flib_def = &functions;
  passes.device_set = &devices;
  TF_RETURN_IF_ERROR(OptimizationPassRegistry::Global()->RunGrouping(
      OptimizationPassRegistry::PRE_PLACEMENT, passes));
  Placer placer(graph->get(), "", &functions, &devices, nullptr, true, false);
  return placer.Run(passes);
}

// Prints where the nodes are that the outputs of a signature need.
void Print(const Graph& graph, const SignatureDef& signature) {
  std::map<std::string, Node*> by_name;
  for (Node* node : graph.nodes()) by_name[node->name()] = node;
  std::vector<Node*> todo;
  for (const auto& output : signature.outputs()) {
    std::string name = output.second.name();
    name = name.substr(0, name.find(':'));
    if (by_name.count(name)) todo.push_back(by_name[name]);
  }
  std::set<Node*> needed;
  std::map<std::string, std::map<std::string, int>> counts;
  while (!todo.empty()) {
    Node* node = todo.back();
    todo.pop_back();
    if (!needed.insert(node).second) continue;
    for (const Edge* edge : node->in_edges()) todo.push_back(edge->src());
    if (!node->IsOp()) continue;
    const std::string& device = node->assigned_device_name();
    ++counts[device.substr(device.rfind(':') - 3)][node->type_string()];
  }
  std::string separator;
  std::cout << "{";
  for (const auto& [device, operations] : counts) {
    std::cout << separator << "\"" << device << "\": {";
    separator.clear();
    for (const auto& [operation, number] : operations) {
      std::cout << separator << "\"" << operation << "\": " << number;
      separator = ", ";
    }
    std::cout << "}";
    separator = ", ";
  }
  std::cout << "}" << std::endl;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::cerr << "usage: placer MODEL SIGNATURE..." << std::endl;
    return 2;
  }
  SavedModel model;
  std::unique_ptr<Graph> graph;
  absl::Status status = ReadBinaryProto(
      Env::Default(), std::string(arguments[1]) + "/saved_model.pb", &model);
  if (status.ok()) status = Placed(model.meta_graphs(0), &graph);
  if (!status.ok()) {
    std::cerr << status.ToString() << std::endl;
    return 1;
  }
  for (int i = 2; i < count; ++i) {
    const auto& signatures = model.meta_graphs(0).signature_def();
    if (!signatures.count(arguments[i])) {
      std::cerr << "no signature " << arguments[i] << std::endl;
      return 1;
    }
    Print(*graph, signatures.at(arguments[i]));
  }
  return 0;
}
