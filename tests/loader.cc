// Loads a SavedModel as TensorFlow Serving does, and runs `serving_default` on texts.
//
//   loader MODEL TEXT...   a line a text: its target, a tab, its score

#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"
#include "tensorflow/core/public/session.h"

int main(int count, char** arguments) {
  tensorflow::SavedModelBundle bundle;
  auto status = tensorflow::LoadSavedModel({}, {}, arguments[1], {"serve"}, &bundle);
  if (!status.ok()) {
    std::cerr << status.ToString() << std::endl;
    return 1;
  }
  tensorflow::Tensor texts(tensorflow::DT_STRING, tensorflow::TensorShape({count - 2}));
  for (int i = 2; i < count; ++i) texts.vec<tensorflow::tstring>()(i - 2) = arguments[i];
  const auto& signature = bundle.GetSignatures().at("serving_default");
  std::vector<tensorflow::Tensor> found;
  status = bundle.GetSession()->Run(
      {{signature.inputs().at("source").name(), texts}},
      {signature.outputs().at("target").name(), signature.outputs().at("score").name()}, {},
      &found);
  if (!status.ok()) {
    std::cerr << status.ToString() << std::endl;
    return 1;
  }
  for (int i = 0; i < count - 2; ++i) {
    std::cout << found[0].vec<tensorflow::tstring>()(i) << "\t" << found[1].vec<float>()(i)
              << std::endl;
  }
  return 0;
}
